"""Several inputs on the command line, by place and by name."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import subpc
from subpc.cli.main import run
from subpc.errors import ConfigError
from subpc.frontend.input_shapes import Input, group_shapes, parse_shape
from subpc.library.artifact import read_metadata
from tests.cli.several_inputs import EXAMPLES, MASKED, masked

A, B = "image=1,3,12,10", "mask=1,1,12,10"
FILES = ["state.pt", "program.pt2", "trace.pt", "net.onnx"]


class Plain(torch.nn.Module):
    """Exporters to ONNX and TorchScript take no dictionaries."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = masked()

    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(self.inner(image, mask).values())


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("several")
    torch.save(masked().state_dict(), folder / "state.pt")
    torch.export.save(torch.export.export(masked(), EXAMPLES), folder / "program.pt2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(Plain(), EXAMPLES), str(folder / "trace.pt"))
        axes = {"image": {2: "h", 3: "w"}, "mask": {2: "h", 3: "w"}}
        names = {"input_names": ["image", "mask"], "dynamic_axes": axes}
        torch.onnx.export(
            Plain(), EXAMPLES, str(folder / "net.onnx"), dynamo=False, opset_version=17, **names
        )
    return folder


def arch(name: str) -> list[str]:
    return ["--arch", MASKED] if name == "state.pt" else []


@pytest.mark.parametrize(
    "shapes", [[A, B], [B, A], ["1,3,12,10", "1,1,12,10"]], ids=["names", "other order", "places"]
)
@pytest.mark.parametrize("name", FILES)
def test_shapes_of_two_inputs(name: str, shapes: list[str], files: Path, tmp_path: Path) -> None:
    options = [word for shape in shapes for word in ("--shape", shape)]
    assert (
        run(["compile", str(files / name), *arch(name), *options, "-o", str(tmp_path / "m.so")])
        == 0
    )
    outputs = subpc.load(tmp_path / "m.so")(*EXAMPLES)
    for got, expected in zip(outputs, masked()(*EXAMPLES).values(), strict=True):
        torch.testing.assert_close(got, expected.detach(), rtol=1e-4, atol=1e-5)


WRONG = {
    "name": (["image=1,3,12,10", "msk=1,1,12,10"], "no input 'msk'"),
    "one missing": ([A], "'mask' is missing"),
    "one too few": (["1,3,12,10"], "1 shape was given for 2 inputs"),
    "mixed": ([A, "1,1,12,10"], "give NAME=SHAPE for each"),
    "uneven": ([A, B, A], "as many shapes as the others"),
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("name", FILES)
def test_the_inputs_are_listed(
    name: str, case: str, files: Path, compiling: Callable[..., str]
) -> None:
    shapes, words = WRONG[case]
    message = compiling(
        files / name,
        *arch(name),
        *(word for shape in shapes for word in ("--shape", shape)),
        code=2,
    )
    assert words in message
    assert "The model's inputs: image" in message
    assert "; mask" in message


@pytest.mark.parametrize("name", ["program.pt2", "net.onnx"])
@pytest.mark.parametrize(
    ("shape", "words"),
    [("mask=1,12,10", "has 4 dimensions"), ("mask=1,1,12,10:int64", "is float32, not int64")],
)
def test_ranks_and_types_that_the_file_knows(
    name: str, shape: str, words: str, files: Path, compiling: Callable[..., str]
) -> None:
    message = compiling(files / name, "--shape", A, "--shape", shape, code=2)
    assert words in message
    assert "mask float32 1,1," in message


def test_an_optional_input_two_sizes_and_every_command(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    library = tmp_path / "m.so"
    first = ["--shape", A, "--shape", B, "--shape", "ids=1,4:int64"]
    second = ["--shape", "ids=2,4:int64", "--shape", "image=2,3,12,10", "--shape", "mask=2,1,12,10"]
    assert (
        run(
            [
                "compile",
                str(files / "state.pt"),
                "--arch",
                MASKED,
                *first,
                *second,
                "-o",
                str(library),
            ]
        )
        == 0
    )
    functions = read_metadata(library).functions
    assert [[t.shape[0] for t in f.inputs] for f in functions] == [[1, 1, 1], [2, 2, 2]]
    assert [(t.name, t.dtype) for t in functions[0].inputs] == [
        ("image", "float32"),
        ("mask", "float32"),
        ("ids", "int64"),
    ]
    capsys.readouterr()
    engine = ["--compare", "torch", "--model", str(files / "state.pt"), "--arch", MASKED]
    assert (
        run(
            [
                "bench",
                str(library),
                *engine,
                *second,
                "--runs",
                "1",
                "--rounds",
                "1",
                "--warmup",
                "0",
                "--json",
            ]
        )
        == 0
    )
    report = json.loads(capsys.readouterr().out)
    assert report["shapes"] == [[2, 3, 12, 10], [2, 1, 12, 10], [2, 4]]
    assert report["engines"][1]["difference"] < 1e-5
    assert run(["profile", str(library), *second, "--runs", "1", "--no-probes", "--json"]) == 0
    capsys.readouterr()
    assert (
        run(
            [
                "compare",
                str(files / "state.pt"),
                str(library),
                "--arch",
                MASKED,
                *second,
                "--runs",
                "0",
                "--json",
            ]
        )
        == 0
    )
    outputs = json.loads(capsys.readouterr().out)["outputs"]
    assert [row["name"] for row in outputs] == ["features", "largest"]
    assert outputs[0]["relative"] < 1e-5
    assert (outputs[0]["equal"], outputs[1]["equal"]) == (None, 1.0)


def test_names_may_hold_what_separates() -> None:
    shape = parse_shape("serving=input:0=1,3,8,8:uint8")
    assert (tuple(shape), shape.name, shape.dtype) == ((1, 3, 8, 8), "serving=input:0", "uint8")
    assert group_shapes([shape], [Input(name="serving=input:0")])[0][0] == (1, 3, 8, 8)
    for text in ("a=", "1,3:float99", "1,99999999999999999999,3", "²,3"):
        with pytest.raises(ValueError, match=r"shape|type"):
            parse_shape(text)


def test_shapes_by_name_in_python() -> None:
    compiled = subpc.compile(masked(), shapes={"mask": (1, 1, 12, 10), "image": (1, 3, 12, 10)})
    assert compiled.input_names == ("image", "mask")
    for shapes in ({"mask": (1, 1, 12, 10)}, [(0, 3)], [("a",)], 7):
        with pytest.raises(ConfigError):
            subpc.compile(masked(), shapes=shapes)  # type: ignore[arg-type]


INPUTS = {
    "by name": ["mask=m.npy", "image=i.npy"],
    "by place": ["i.npy", "m.npy"],
    "the named one first": ["mask=m.npy", "i.npy"],
}


@pytest.mark.parametrize("case", INPUTS)
def test_running_on_several_files(
    case: str, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("i.npy", EXAMPLES[0].numpy())
    np.save("m.npy", EXAMPLES[1].numpy())
    subpc.compile(files / "program.pt2", output="m.so")
    assert (
        run(
            [
                "run",
                "m.so",
                *(word for text in INPUTS[case] for word in ("--input", text)),
                "-o",
                "y.npz",
            ]
        )
        == 0
    )
    expected = masked()(*EXAMPLES)
    with np.load("y.npz") as found:
        np.testing.assert_allclose(
            found["features"], expected["features"].detach().numpy(), rtol=1e-4, atol=1e-5
        )
    for wrong in (
        ["mask=m.npy"],
        ["msk=m.npy", "i.npy"],
        ["mask=m.npy", "mask=m.npy"],
        ["i.npy"] * 3,
    ):
        assert run(["run", "m.so", *(word for text in wrong for word in ("--input", text))]) == 2


def test_whole_numbers_of_two_inputs(
    files: Path, tmp_path: Path, compiling: Callable[..., str]
) -> None:
    """Ranges are those of the arrays with the inputs' names; other names are refused."""
    arrays = {"mask": EXAMPLES[1].numpy(), "image": EXAMPLES[0].numpy()}
    np.savez(tmp_path / "x.npz", **arrays)
    np.savez(tmp_path / "wrong.npz", image=arrays["image"], msk=arrays["mask"])
    options = ["--precision", "int8", "--shape", A, "--shape", B, "--calibration"]
    library = tmp_path / "m.so"
    command = ["compile", str(files / "net.onnx"), *options, str(tmp_path / "x.npz")]
    assert run([*command, "-o", str(library)]) == 0
    assert read_metadata(library).precision == "int8"
    expected = masked()(*EXAMPLES)["features"].detach()
    off = (subpc.load(library)(*EXAMPLES)[0] - expected).abs().max() / expected.abs().max()
    assert 0 < off < 0.03
    said = compiling(files / "net.onnx", *options, tmp_path / "wrong.npz", code=2)
    assert "holds image, msk; the network's inputs are image float32 1,3,12,10; mask" in said
