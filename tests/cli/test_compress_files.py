"""`subpc compress` with files and images of every kind: what it says, what it writes, and every
wrong input."""

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from subpc.cli.main import run
from subpc.compiler.compile_model import compile
from subpc.frontend.load_network import load_network
from tests.algorithms.file_format.reader import load_compressed

Capture = pytest.CaptureFixture[str]
SHAPE = (1, 3, 16, 16)
ARCH = f"{__name__}:tiny"


class Tiny(nn.Module):
    """Two pairs, a linear layer; options make it awkward."""

    def __init__(self, kind: str = "plain") -> None:
        super().__init__()
        norm: Callable[[int], nn.Module] = (
            nn.BatchNorm2d if kind != "no batch norm" else lambda channels: nn.Identity()
        )
        kernel, pad = ((3, 1), (1, 0)) if kind == "non-square" else ((3, 3), (1, 1))
        groups = 4 if kind == "grouped" else 1
        self.conv1, self.bn1 = nn.Conv2d(3, 16, kernel, padding=pad), norm(16)
        self.conv2, self.bn2 = nn.Conv2d(16, 16, kernel, padding=pad, groups=groups), norm(16)
        self.conv3, self.bn3 = nn.Conv2d(16, 16, kernel, padding=pad, groups=groups), norm(16)
        if kind == "shared weight":
            self.conv3.weight = self.conv2.weight
        self.twice = kind == "used twice"
        self.fc = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.bn1(self.conv1(x)).relu()
        x = self.bn2(self.conv2(x)).relu()
        x = self.bn2(self.conv2(x)).relu() if self.twice else self.bn3(self.conv3(x)).relu()
        return self.fc(x.mean((2, 3)))


def tiny(kind: str = "plain") -> Tiny:
    torch.manual_seed(0)
    model = Tiny(kind)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model.eval()


def program(model: nn.Module, path: Path) -> Path:
    torch.export.save(torch.export.export(model, (torch.rand(SHAPE),)), path)
    return path


def images(folder: Path, count: int, size: tuple[int, int] = (20, 16)) -> Path:
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(0)
    for index in range(count):
        Image.fromarray(draw.integers(0, 255, (*size, 3), np.uint8)).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def compressing(tmp_path: Path, capsys: Capture) -> Callable[..., dict[str, Any]]:
    """Runs `subpc compress METHOD FILE ... -o small.pt --json`, and gives what it prints."""

    def call(method: str, model: Path, *options: str, output: str = "small.pt") -> dict[str, Any]:
        capsys.readouterr()
        assert (
            run(["compress", method, str(model), "-o", str(tmp_path / output), "--json", *options])
            == 0
        ), capsys.readouterr().err
        printed = capsys.readouterr()
        assert printed.err == ""
        report: dict[str, Any] = json.loads(printed.out)
        return report

    return call


@pytest.fixture
def failing(tmp_path: Path, capsys: Capture) -> Callable[..., str]:
    """The same for a command that has to fail and to write nothing."""

    def call(method: str, model: Path, *options: str) -> str:
        before = set(tmp_path.iterdir())
        capsys.readouterr()
        assert run(["compress", method, str(model), "-o", str(tmp_path / "none.pt"), *options]) in (
            1,
            2,
        )
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.startswith("error: ")
        assert 1 <= len(printed.err.splitlines()) <= 2
        assert "internal error" not in printed.err
        assert set(tmp_path.iterdir()) == before
        return printed.err

    return call


def distance(path: Path) -> float:
    """How far the compiled file is from the network that PyTorch builds from it."""
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = load_network(path).model(x).numpy()
    return float(np.abs(compile(path)(x).numpy() - expected).max() / np.ptp(expected))


@pytest.mark.parametrize(
    ("bits", "output"),
    [
        (2, "small.pt"),
        (3, "small.pt"),
        (6, "small.pt"),
        (2, "small.safetensors"),
        (4, "small.safetensors"),
        (8, "small.safetensors"),
    ],
)
def test_bytes_on_disk_are_what_the_report_says(
    bits: int, output: str, tmp_path: Path, compressing: Callable[..., Any]
) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 256, 3),
        nn.BatchNorm2d(256),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3),
        nn.AdaptiveAvgPool2d(1),
    )
    report = compressing(
        "udfc",
        program(model.eval(), tmp_path / "m.pt2"),
        "--ratio",
        "0",
        "--bits",
        str(bits),
        "--inputs",
        "normal",
        output=output,
    )
    on_disk = (tmp_path / output).stat().st_size
    assert report["file_bytes"] == on_disk
    # Tensors alone, counted without the file: names, settings and the report are less than two per
    # cent, or 4 kB.
    assert on_disk - max(0.02 * on_disk, 4096) <= report["bytes"] <= on_disk
    codes = sum(256 * inputs * 9 * bits / 8 for inputs in (3, 256))
    assert codes < sum(layer["bytes"] for layer in report["layers"]) < codes + 256 * 2 * 8 + 16


def test_an_exported_program_there_and_back(
    tmp_path: Path, compressing: Callable[..., Any], capsys: Capture
) -> None:
    model = program(tiny(), tmp_path / "m.pt2")
    report = compressing("udfc", model, "--ratio", "0.25", "--bits", "6")
    assert {layer["name"]: layer["kept"] for layer in report["layers"]} == {
        "conv1": 12,
        "conv2": 12,
        "conv3": 16,
        "fc": 4,
    }
    assert {layer["bits"] for layer in report["layers"]} == {6}
    assert distance(tmp_path / "small.pt") < 1e-4
    again = compressing(
        "dfmpc", tmp_path / "small.pt", "--low-bits", "4", output="again.safetensors"
    )
    assert again["layers"][0]["filters"] == 12
    assert distance(tmp_path / "again.safetensors") < 1e-4


def test_inspect_shows_the_bits_of_each_layer(
    tmp_path: Path, compressing: Callable[..., Any], capsys: Capture
) -> None:
    compressing("dfmpc", program(tiny(), tmp_path / "m.pt2"), "--low-bits", "3", "--high-bits", "5")
    assert run(["compile", str(tmp_path / "small.pt"), "-o", str(tmp_path / "m.so")]) == 0
    capsys.readouterr()
    assert run(["inspect", str(tmp_path / "m.so"), "--json"]) == 0
    bits = {layer["name"]: layer["bits"] for layer in json.loads(capsys.readouterr().out)["layers"]}
    assert bits == {
        name: codes.bits for name, codes in load_compressed(tmp_path / "small.pt").packed.items()
    }
    assert set(bits.values()) == {3, 5}
    assert run(["inspect", str(tmp_path / "m.so")]) == 0
    assert "bits" in capsys.readouterr().out


def test_codes_and_scales_reach_the_compiler_untouched(
    tmp_path: Path, compressing: Callable[..., Any]
) -> None:
    from subpc.frontend.import_model import import_model

    compressing("udfc", program(tiny(), tmp_path / "m.pt2"), "--bits", "4", "--per-channel")
    packed = load_compressed(tmp_path / "small.pt").packed
    (imported,) = import_model(tmp_path / "small.pt")
    for name, codes in packed.items():
        assert torch.equal(imported.packed[name].scale, codes.scale)
        assert torch.equal(imported.packed[name].codes, codes.codes)
        (key,) = [
            key for key, original in imported.param_names.items() if original == f"{name}.weight"
        ]
        assert np.array_equal(imported.params[key], codes.dequantize().numpy())


def test_onnx_without_batch_norms_says_what_still_works(
    tmp_path: Path, compressing: Callable[..., Any]
) -> None:
    torch.onnx.export(
        tiny("no batch norm"), (torch.rand(SHAPE),), str(tmp_path / "m.onnx"), dynamo=False
    )
    report = compressing("udfc", tmp_path / "m.onnx", "--bits", "6")
    assert any("no batch norms" in note for note in report["notes"])
    assert all(
        layer["kept"] == layer["filters"] and layer["bits"] == 6 for layer in report["layers"]
    )
    assert distance(tmp_path / "small.pt") < 1e-4


@pytest.mark.parametrize("kind", ["shared weight", "used twice", "grouped", "non-square"])
@pytest.mark.parametrize("method", ["udfc", "dfmpc"])
def test_awkward_networks_are_right_or_left_alone(
    kind: str, method: str, tmp_path: Path, compressing: Callable[..., Any]
) -> None:
    report = compressing(method, program(tiny(kind), tmp_path / "m.pt2"))
    reasons = {layer["name"]: layer["reason"] for layer in report["layers"]}
    if kind != "non-square":
        assert any(reasons.values())
    assert distance(tmp_path / "small.pt") < 1e-4


def test_half_precision_and_a_scale_of_zero(
    tmp_path: Path, compressing: Callable[..., Any]
) -> None:
    model = tiny()
    with torch.no_grad():
        model.bn1.weight[:4] = 0  # type: ignore[index]
    half = {
        key: value.half() if value.is_floating_point() else value
        for key, value in model.state_dict().items()
    }
    torch.save({"state_dict": half}, tmp_path / "w.pt")
    report = compressing("udfc", tmp_path / "w.pt", "--arch", ARCH, "--shape", "1,3,16,16")
    assert any("float16" in note for note in report["notes"])
    assert distance(tmp_path / "small.pt") < 1e-4


def test_calibration_leaves_out_what_is_no_image(
    tmp_path: Path, compressing: Callable[..., Any]
) -> None:
    folder = images(tmp_path / "images", 5)
    (folder / "broken.jpg").write_bytes(b"none")
    report = compressing("udfc", program(tiny(), tmp_path / "m.pt2"), "--calibration", str(folder))
    assert report["inputs"] == f"5 from {folder}"
    assert any("broken.jpg" in note for note in report["notes"])


@pytest.mark.parametrize("method", ["udfc", "dfmpc", "blocks"])
def test_generated_images(method: str, tmp_path: Path, compressing: Callable[..., Any]) -> None:
    options = ["--synthetic", "4", "--synthetic-steps", "2"]
    assert (
        compressing(method, program(tiny(), tmp_path / "m.pt2"), *options)["inputs"]
        == "4 generated"
    )


def test_the_strongest_setting_within_a_drop(
    tmp_path: Path, compressing: Callable[..., Any]
) -> None:
    for name in ("0", "1", "2", "3"):
        images(tmp_path / "labelled" / name, 3)
    options = ["--max-drop", "100", "--eval", str(tmp_path / "labelled")]
    report = compressing("udfc", program(tiny(), tmp_path / "m.pt2"), "--ratio", "0", *options)
    assert report["search"]["setting"] == {"bits": 2}
    assert len(report["search"]["trials"]) == 3


def test_wrong_images(tmp_path: Path, failing: Callable[..., str]) -> None:
    model, empty = program(tiny(), tmp_path / "m.pt2"), tmp_path / "empty"
    empty.mkdir()
    broken, two = tmp_path / "broken", tmp_path / "two"
    broken.mkdir()
    for index in range(3):
        (broken / f"{index}.png").write_bytes(b"none")
    for name in ("cat", "dog"):
        images(two / name, 2)
    four = tmp_path / "four"
    for name in "0123":
        images(four / name, 1)
    assert "is not a folder" in failing("udfc", model, "--calibration", str(tmp_path / "missing"))
    assert "holds 0 images" in failing("udfc", model, "--calibration", str(empty))
    assert "cannot be read" in failing("udfc", model, "--calibration", str(broken))
    assert "choose one" in failing("udfc", model, "--calibration", str(two), "--synthetic", "4")
    assert "give both" in failing("udfc", model, "--max-drop", "1")
    assert "4 classes" in failing("udfc", model, "--max-drop", "1", "--eval", str(two))
    assert "has no t10k" in failing(
        "udfc", model, "--max-drop", "1", "--eval", f"fashion-mnist:{empty}", "--shape", "1,3,16,16"
    )
    assert "0 to 100" in failing("udfc", model, "--max-drop", "-1", "--eval", str(four))


def test_wrong_files(tmp_path: Path, failing: Callable[..., str]) -> None:
    model, script = tiny(), tmp_path / "script.pt"
    torch.jit.save(torch.jit.trace(model, torch.rand(SHAPE)), str(script))
    assert "--shape" in failing("udfc", script)
    good = program(model, tmp_path / "m.pt2")
    assert "exported for input 1,3,16,16" in failing("udfc", good, "--shape", "1,3,32,32")
    assert "from 2 to 8" in failing("dfmpc", good, "--low-bits", "1")
    assert "leaves no channel" in failing("udfc", good, "--ratio", "0.99")
    with torch.no_grad():
        model.bn1.running_var[0] = float("nan")  # type: ignore[index]
    assert "not finite" in failing("udfc", program(model, tmp_path / "nan.pt2"))


def _small_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    model = program(tiny(), tmp_path / "m.pt2")
    before = set(tmp_path.iterdir())
    command = [
        sys.executable,
        "-m",
        "subpc.cli",
        "compress",
        "udfc",
        str(model),
        "-o",
        str(tmp_path / "small.pt"),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, preexec_fn=_small_files, check=False
    )
    assert done.returncode == 1
    assert "cannot write" in done.stderr
    assert set(tmp_path.iterdir()) == before
