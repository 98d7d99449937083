"""Images into networks of every layout, and what is said of what comes out."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import subpc
from subpc.cli.main import run
from subpc.errors import ConfigError
from subpc.images.input import image_input
from subpc.images.output import look, summary
from subpc.images.prepare import Preparation, read_image
from subpc.images.unlabelled import read_sized_image
from subpc.library.report import TensorInfo

HOW = Preparation(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 50, 4), np.uint8)
    Image.fromarray(pixels, "RGBA").save(tmp_path / "p.png")
    return tmp_path / "p.png"


def info(*shape: int, dtype: str = "float32") -> TensorInfo:
    return TensorInfo(name="x", shape=shape, dtype=dtype)


def test_a_square_is_what_it_always_was(path: Path) -> None:
    expected = read_image(path, Preparation(size=16, mean=HOW.mean, std=HOW.std))
    np.testing.assert_array_equal(image_input(path, info(1, 3, 16, 16), HOW), expected)
    np.testing.assert_array_equal(
        image_input(path, info(2, 16, 16, 3), HOW)[1], expected[0].transpose(1, 2, 0)
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_other_shapes_are_those_of_calibration(channels: int, path: Path) -> None:
    shape = (1, channels, 12, 20)
    np.testing.assert_array_equal(
        image_input(path, info(*shape), HOW), read_sized_image(path, shape, HOW)
    )
    whole = np.asarray(
        Image.open(path)
        .convert("RGB" if channels == 3 else "L")
        .resize((20, 12), Image.Resampling.BILINEAR),
        np.float32,
    )
    found = image_input(path, info(*shape), HOW)[0, 0]
    np.testing.assert_allclose(
        found, (whole.reshape(12, 20, channels)[..., 0] / 255 - 0.5) / 0.2, rtol=1e-4
    )


def test_bytes_stay_bytes_and_opacity_is_the_fourth_channel(path: Path) -> None:
    found = image_input(path, info(1, 30, 50, 4, dtype="uint8"), HOW)
    np.testing.assert_array_equal(found[0], np.asarray(Image.open(path)))
    opacity = image_input(path, info(1, 4, 30, 50), HOW)[0, 3]
    np.testing.assert_allclose(opacity, np.asarray(Image.open(path))[..., 3] / 255, rtol=1e-5)
    Image.open(path).convert("RGB").save(path)
    assert image_input(path, info(1, 4, 30, 50), HOW)[0, 3].min() == 1


@pytest.mark.parametrize("shape", [(1, 2, 8, 8), (1, 10), (3, 8, 8), (1, 3, 8, 8, 8)])
def test_inputs_that_take_no_image(shape: tuple[int, ...], path: Path) -> None:
    with pytest.raises(ConfigError, match="--input"):
        image_input(path, info(*shape), HOW)


def test_what_outputs_say() -> None:
    scores = np.zeros((1, 3, 4, 5), np.float32)
    scores[0, 2, :2] = 1
    seen = look({"out": scores}, ["sky", "road", "car"], 5)
    assert seen.pixels == ((0, "sky", 0.5), (2, "car", 0.5))
    assert look({"out": scores.transpose(0, 2, 3, 1)}, None, 1, last=True).pixels == (
        (0, "class 0", 0.5),
    )
    assert (
        look({"boxes": np.zeros((1, 100, 4), np.float32), "m": scores.argmax(1)}, None, 5).output
        == "m"
    )
    for map_of_one in (
        np.array([[[[0.2, 0.9]] * 2]], np.float32),
        np.array([[[[-3.0, 4.0]] * 2]], np.float32),
    ):
        assert look({"mask": map_of_one}, None, 5).pixels == (
            (0, "class 0", 0.5),
            (1, "class 1", 0.5),
        )
    assert look({"s": np.array([[0.0, 9.0]], np.float32), "out": scores}, None, 1).classes[0][
        :2
    ] == (1, "class 1")
    assert (
        look({"pooled": np.array([0.0, 9.0], np.float32).reshape(1, 2, 1, 1)}, None, 1).classes[0][
            0
        ]
        == 1
    )
    assert (
        look(
            {"boxes": np.zeros((1, 100, 4), np.float32), "n": np.zeros((), np.int64)}, None, 5
        ).output
        == ""
    )
    assert summary("m", np.zeros((0, 4), np.float32)) == "m: float32[0, 4]"
    assert summary("m", np.array([True, False])) == "m: bool[2], from 0 to 1"


def test_the_command(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    library, mask = tmp_path / "m.so", tmp_path / "mask.png"
    net = nn.Conv2d(3, 4, 1).eval()
    subpc.compile(net, shapes=[(1, 3, 12, 20)], output=library)
    assert run(["run", str(library), "--image", str(path), "--mask", str(mask)]) == 0
    assert "of the pixels  class" in capsys.readouterr().out
    x = torch.from_numpy(image_input(path, info(1, 3, 12, 20), Preparation()))
    np.testing.assert_array_equal(np.asarray(Image.open(mask)), net(x)[0].argmax(0).numpy())
    assert run(["run", str(library), "--image", str(path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["classes"], sum(row["share"] for row in facts["pixels"])) == (
        [],
        pytest.approx(1),
    )
    library = tmp_path / "other.so"
    subpc.compile(nn.Flatten(), shapes=[(1, 3, 12, 20)], output=library)
    assert (
        run(["run", str(library), "--image", str(path), "--mask", str(tmp_path / "none.png")]) == 2
    )
    assert "leave out --mask" in capsys.readouterr().err
    assert not (tmp_path / "none.png").exists()
