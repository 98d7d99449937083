"""Files and images for command lines, and fixtures for those that have to fail."""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from subpc.cli.main import run
from subpc.frontend.architectures.build import build_arch
from tests.cli.network import CONV, OLD, RESNET, WEIGHT, net, onnx_net


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network in every kind of file."""
    folder = tmp_path_factory.mktemp("valid")
    torch.save(net().state_dict(), folder / "state.pt")
    torch.save(net().state_dict(), folder / "old.pth", _use_new_zipfile_serialization=False)
    save_file(net().state_dict(), folder / "state.safetensors")
    torch.export.save(torch.export.export(net(), (torch.rand(1, 3, 8, 8),)), folder / "program.pt2")
    torch.jit.save(torch.jit.trace(net(), torch.rand(1, 3, 8, 8)), str(folder / "trace.pt"))
    (folder / "conv.onnx").write_bytes(onnx_net([CONV], WEIGHT))
    return folder


@pytest.fixture
def output(tmp_path: Path) -> Iterator[Path]:
    """A folder with a library that must survive, and that nothing may be added to."""
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "model.so").write_bytes(OLD)
    yield folder / "model.so"
    assert [path.name for path in folder.iterdir()] == ["model.so"]


@pytest.fixture
def attempt(capfd: pytest.CaptureFixture[str], output: Path) -> Callable[..., str]:
    """Runs a command line that has to fail, checks how it fails, and gives what it says.

    capfd also sees what compiled code writes past Python.
    """

    def check(*arguments: object, code: int) -> str:
        capfd.readouterr()
        assert run([str(a) for a in arguments]) == code
        printed = capfd.readouterr()
        assert printed.out == ""
        assert printed.err.startswith("error: ")
        assert 1 <= len(printed.err.splitlines()) <= 2
        assert "Traceback" not in printed.err
        assert "internal error" not in printed.err
        assert output.read_bytes() == OLD
        return printed.err

    return check


@pytest.fixture
def compiling(attempt: Callable[..., str], output: Path) -> Callable[..., str]:
    """The same for `subpc compile FILE ...`."""
    return lambda *arguments, code: attempt("compile", *arguments, "-o", output, code=code)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A network and its architecture in one file, as `subpc compress` reads it."""
    torch.manual_seed(0)
    options = {"in_channels": 3}
    state = build_arch(RESNET, **options).state_dict()
    file = {
        "subpc_format": 1,
        "arch": RESNET,
        "arch_options": options,
        "input_shape": [1, 3, 16, 16],
        "state_dict": state,
    }
    torch.save(file, tmp_path / "weights.pt")
    return tmp_path / "weights.pt"


@pytest.fixture(scope="module")
def fashion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files like Fashion-MNIST's: 256 + 64 images of ten classes, each class a bright row at
    another height."""
    folder = tmp_path_factory.mktemp("fashion")
    random = np.random.default_rng(0)
    for part, count in (("train", 256), ("t10k", 64)):
        labels = (np.arange(count) % 10).astype(np.uint8)
        images = random.integers(0, 60, (count, 28, 28)).astype(np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[2 * label + 3 : 2 * label + 5] += 180
        (folder / f"{part}-images-idx3-ubyte").write_bytes(
            struct.pack(">4I", 2051, count, 28, 28) + images.tobytes()
        )
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(
            struct.pack(">2I", 2049, count) + labels.tobytes()
        )
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Two classes of 20 small images each, told apart by their colour."""
    random = np.random.default_rng(0)
    for name, channel in (("blue", 2), ("red", 0)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for index in range(20):
            pixels = random.integers(0, 100, (40, 48, 3)).astype(np.uint8)
            pixels[..., channel] += 150
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{index:02}.png")
    return tmp_path / "images"
