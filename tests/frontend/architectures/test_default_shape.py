"""Where nobody gives a shape, the architecture's own is taken; a guess is never made for code of
the user's."""

from pathlib import Path

import pytest
import torch
from torch import nn

from subpc.algorithms.dfmpc.config import DfmpcConfig
from subpc.cli.main import run
from subpc.compression.compress import compress_file
from subpc.errors import ConfigError
from subpc.frontend.architectures.build import build_arch
from subpc.frontend.architectures.default_shape import default_shape
from subpc.frontend.files.load_file import load_torch_file
from subpc.frontend.import_model import import_model
from tests.frontend.small_model import ARCH, small

SHAPES = {
    "torchvision:mobilenet_v2": (1, 3, 224, 224),
    "squeezenet1_1": (1, 3, 224, 224),
    "inception_v3": (1, 3, 299, 299),
    "efficientnet_b1": (1, 3, 240, 240),
    "lraspp_mobilenet_v3_large": (1, 3, 520, 520),
    "timm:tf_efficientnet_lite1": (1, 3, 240, 240),
    "timm:lcnet_050": (1, 3, 224, 224),
    "subpc:resnet20": (1, 1, 28, 28),
    "fasterrcnn_mobilenet_v3_large_fpn": (),
    "r3d_18": (),
}


@pytest.mark.parametrize("arch", SHAPES)
def test_shapes_of_known_architectures(arch: str) -> None:
    assert default_shape(arch, build_arch(arch)) == SHAPES[arch]


def test_colours_and_code_of_the_user() -> None:
    assert default_shape("subpc:resnet20", build_arch("subpc:resnet20", in_channels=3)) == (
        1,
        3,
        32,
        32,
    )
    assert default_shape("timm:lcnet_050", build_arch("timm:lcnet_050", in_chans=1)) == (
        1,
        1,
        224,
        224,
    )
    assert default_shape("my.module:net", nn.Conv2d(3, 8, 3)) == ()


def test_the_assumption_is_said_and_a_shape_that_is_given_wins(tmp_path: Path) -> None:
    torch.save(build_arch("subpc:resnet20").state_dict(), tmp_path / "w.pth")
    (model,) = import_model(tmp_path / "w.pth", arch="subpc:resnet20")
    assert model.input_shapes == ((1, 1, 28, 28),)
    assert model.notes[0].startswith(
        "input shape assumed: 1,1,28,28, the default of subpc:resnet20;"
    )
    (model,) = import_model(tmp_path / "w.pth", arch="subpc:resnet20", shapes=[(2, 1, 32, 32)])
    assert model.input_shapes == ((2, 1, 32, 32),)
    assert not any("assumed" in note for note in model.notes)
    torch.save(small().state_dict(), tmp_path / "mine.pth")
    with pytest.raises(ConfigError, match="--shape 1,3,224,224"):
        import_model(tmp_path / "mine.pth", arch=ARCH)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.save(build_arch("subpc:resnet20").state_dict(), tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_compressed_file_records_it(suffix: str, weights: Path, tmp_path: Path) -> None:
    small_file = tmp_path / f"s{suffix}"
    report = compress_file(weights, DfmpcConfig.paper(), small_file, arch="subpc:resnet20")
    assert any(note.startswith("input shape assumed: 1,1,28,28") for note in report.notes)
    assert load_torch_file(small_file).input_shape == (1, 1, 28, 28)
    (model,) = import_model(small_file)
    assert model.input_shapes == ((1, 1, 28, 28),)
    assert not any("assumed" in note for note in model.notes)


def test_commands_say_the_assumption(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    library = tmp_path / "s.so"
    assert run(["compile", str(weights), "--arch", "subpc:resnet20", "-o", str(library)]) == 0
    assert "note: input shape assumed: 1,1,28,28" in capsys.readouterr().out
    assert (
        run(["compare", str(weights), str(weights), "--arch", "subpc:resnet20", "--runs", "0"]) == 0
    )
    assert "input shape assumed: 1,1,28,28" in capsys.readouterr().out


def test_shapes_that_are_found_by_trying_are_said(tmp_path: Path) -> None:
    torch.save(small().state_dict(), tmp_path / "mine.pth")
    report = compress_file(tmp_path / "mine.pth", DfmpcConfig(), tmp_path / "s.pt", arch=ARCH)
    assert any("1,3,64,64, which was found by trying" in note for note in report.notes)
