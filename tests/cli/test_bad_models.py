"""Model files that cannot be compiled: exit code 1 or 2, one or two lines that say what to do,
nothing written, nothing lost."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from subpc.cli.main import run
from subpc.library.artifact import read_metadata
from tests.cli.network import ARCH, CONV, NOISY, SHAPE, WEIGHT, net, onnx_net
from tests.frontend.files.archives import Malicious

KINDS = ["state.pt", "old.pth", "state.safetensors", "program.pt2", "trace.pt", "conv.onnx"]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("kind", KINDS)
def test_truncated_and_empty_files(
    kind: str, share: float, valid: Path, tmp_path: Path, compiling: Callable[..., str]
) -> None:
    content = (valid / kind).read_bytes()
    (tmp_path / kind).write_bytes(content[: int(share * len(content))])
    message = compiling(tmp_path / kind, "--arch", ARCH, "--shape", SHAPE, code=1)
    assert kind in message
    assert ("is empty" in message) == (share == 0)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_malicious_pickle_does_not_run(
    legacy: bool, tmp_path: Path, compiling: Callable[..., str]
) -> None:
    mark = tmp_path / "executed"
    torch.save(
        {"weight": Malicious(mark)}, tmp_path / "m.pt", _use_new_zipfile_serialization=not legacy
    )
    message = compiling(tmp_path / "m.pt", "--arch", ARCH, "--shape", SHAPE, code=1)
    assert "could run any code" in message
    assert "--trust-pickle" in message
    assert not mark.exists()


def test_a_library_is_compiled_already(
    valid: Path, tmp_path: Path, compiling: Callable[..., str]
) -> None:
    assert run(["compile", str(valid / "conv.onnx"), "-o", str(tmp_path / "m.so")]) == 0
    assert "compiled already" in compiling(tmp_path / "m.so", code=1)


def test_a_state_dict_that_does_not_fit(tmp_path: Path, compiling: Callable[..., str]) -> None:
    state = dict(net().state_dict())
    del state["conv.bias"]
    torch.save(
        state | {"extra.weight": torch.ones(1), "fc.weight": torch.ones(4, 9)}, tmp_path / "m.pt"
    )
    message = compiling(tmp_path / "m.pt", "--arch", ARCH, "--shape", SHAPE, code=1)
    assert "1 missing: conv.bias" in message
    assert "1 unexpected: extra.weight" in message
    assert "fc.weight is (4, 9) instead of (4, 8)" in message


def test_weights_without_their_architecture(valid: Path, compiling: Callable[..., str]) -> None:
    assert "--arch" in compiling(valid / "state.pt", "--shape", SHAPE, code=2)
    assert "did you mean resnet18" in compiling(
        valid / "state.pt", "--arch", "resnet8", "--shape", SHAPE, code=2
    )


WRONG_ONNX = {
    "unknown operator": (
        onnx_net([helper.make_node("Frobnicate", ["x"], ["y"], name="stem")], WEIGHT),
        "Frobnicate (in stem)",
    ),
    "wrong shape": (
        onnx_net([CONV], np.ones((4, 7, 3, 3), np.float32)),
        "takes 7 channels, but gets 3",
    ),
    "newer opset": (onnx_net([CONV], WEIGHT, opset=999), "uses opset 999"),
    "no graph": (onnx.ModelProto(ir_version=8).SerializeToString(), "holds no operators"),
}


@pytest.mark.parametrize("name", WRONG_ONNX)
def test_onnx_files(name: str, tmp_path: Path, compiling: Callable[..., str]) -> None:
    content, words = WRONG_ONNX[name]
    (tmp_path / "m.onnx").write_bytes(content)
    assert words in compiling(tmp_path / "m.onnx", code=1)


@pytest.mark.parametrize("shape", ["1,3", "3,8,8", "1,3,8", "1,3,8,8,8", "1,5,8,8", "1,3,1,1"])
@pytest.mark.parametrize("kind", ["state.pt", "trace.pt", "conv.onnx", "program.pt2"])
def test_shapes_that_the_network_does_not_take(
    kind: str, shape: str, valid: Path, compiling: Callable[..., str]
) -> None:
    arch = ["--arch", ARCH] if kind == "state.pt" else []
    message = compiling(valid / kind, *arch, "--shape", shape, code=2)
    assert "shape" in message
    assert any(spelled in message for spelled in (shape, shape.replace(",", ", ")))


@pytest.mark.parametrize("shape", ["", "1,3,8,", "1,3,-8,8", "1,3,0,8", "abc", "1 3 8 8"])
def test_shapes_that_are_none(shape: str, valid: Path, compiling: Callable[..., str]) -> None:
    assert "as in 1,3,224,224" in compiling(valid / "conv.onnx", "--shape", shape, code=2)


def test_no_shape(valid: Path, compiling: Callable[..., str]) -> None:
    assert "such as --shape 1,3,224,224" in compiling(valid / "state.pt", "--arch", ARCH, code=2)


@pytest.mark.parametrize(
    ("value", "words"), [(float("nan"), "contain NaN"), (float("inf"), "contain infinite values")]
)
def test_weights_that_are_no_numbers_are_a_warning(
    value: float, words: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    module = net()
    module.conv.weight.data[0, 0, 0, 0] = value
    torch.save(module.state_dict(), tmp_path / "m.pt")
    library = tmp_path / "m.so"
    assert (
        run(
            [
                "compile",
                str(tmp_path / "m.pt"),
                "--arch",
                ARCH,
                "--shape",
                SHAPE,
                "-o",
                str(library),
            ]
        )
        == 0
    )
    assert f"warning: weights of layer conv {words}" in capfd.readouterr().out
    assert read_metadata(library).warnings == (
        f"weights of layer conv {words}: the outputs will too",
    )


def test_warnings_of_other_libraries_are_not_shown(
    valid: Path, compiling: Callable[..., str]
) -> None:
    assert "channels" in compiling(
        valid / "state.pt", "--arch", NOISY, "--shape", "1,5,8,8", code=2
    )
