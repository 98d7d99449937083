"""Networks of several inputs, and of bytes, in whole numbers: what they are calibrated with, and
that they stay what they were."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import subpc
from subpc.calibration.given import calibration_inputs
from subpc.calibration.observe import in_batches
from subpc.calibration.stand_ins import stand_ins
from subpc.errors import ConfigError
from subpc.frontend.import_model import import_model
from subpc.images.prepare import Preparation
from subpc.library.report import TensorInfo
from subpc.passes.dataflow import Dataflow
from subpc.passes.pipeline import Rewritten, rewrite_model
from subpc.schedules.isa import AVX512
from tests.cli.several_inputs import EXAMPLES, FRAME, camera, masked

IMAGE = TensorInfo(name="image", shape=(2, 3, 4, 4))
POSE = TensorInfo(name="pose", shape=(4, 5))
GAIN = TensorInfo(name="gain", shape=())
FRAMES = TensorInfo(name="frames", shape=(1, 6, 5, 3), dtype="uint8")
RNG = np.random.default_rng(0)


def floats(net: nn.Module, examples: tuple[torch.Tensor, ...]) -> Rewritten:
    (imported,) = import_model(net, example_inputs=examples)
    return rewrite_model(imported, isa=AVX512, sparse="off")


def given(source: Any, *inputs: TensorInfo) -> tuple[torch.Tensor, ...]:
    return calibration_inputs(source, inputs, Preparation()).arrays


def test_arrays_go_to_the_inputs_of_their_names_in_any_order(tmp_path: Path) -> None:
    arrays = {
        "pose": RNG.random((8, 5), np.float32),
        "gain": np.float32(2),
        "image": RNG.random((4, 3, 4, 4), np.float32),
    }
    np.savez(tmp_path / "x.npz", **arrays)
    for source in (arrays, tmp_path / "x.npz"):
        found = given(source, IMAGE, POSE, GAIN)
        for x, name in zip(found, ("image", "pose", "gain"), strict=True):
            np.testing.assert_array_equal(x.numpy(), arrays[name])


def test_samples_of_all_inputs_stay_together_where_some_are_left_out() -> None:
    """300 batches of two images and four poses each: every third batch, of both."""
    numbers = np.arange(300, dtype=np.float32)
    image = np.broadcast_to(numbers.repeat(2)[:, None, None, None], (600, 3, 4, 4))
    pose = np.broadcast_to(numbers.repeat(4)[:, None], (1200, 5))
    images, poses = given({"image": image, "pose": pose}, IMAGE, POSE)
    assert len(images) == 200
    np.testing.assert_array_equal(images[::2, 0, 0, 0], numbers[::3])
    np.testing.assert_array_equal(poses[::4, 0], numbers[::3])


def test_images_that_fill_no_batch_are_repeated_and_half_a_batch_is_left_out() -> None:
    x = RNG.random((7, 5), np.float32)
    (few,) = given(x[:3], POSE)
    np.testing.assert_array_equal(few.numpy(), x[[0, 1, 2, 0]])
    (whole,) = given(x, POSE)
    np.testing.assert_array_equal(whole.numpy(), x[:4])


BYTES = RNG.integers(0, 256, (3, 6, 5, 3), dtype=np.uint8)
REFUSED: dict[str, tuple[Any, tuple[TensorInfo, ...], str]] = {
    "an array for two inputs": (BYTES, (IMAGE, POSE), r"the network has 2 \(image float32 2,3,4,4"),
    "a folder for two inputs": ("images", (IMAGE, POSE), "holds images for one input"),
    "a name that is none": ({"image": 0, "poses": 0}, (IMAGE, POSE), "holds image, poses; the"),
    "a name too few": ({"image": 0}, (IMAGE, POSE), "holds image; the network's inputs are image"),
    "numbers of samples": (
        {"image": np.zeros((4, 3, 4, 4)), "pose": np.zeros((4, 5))},
        (IMAGE, POSE),
        "different numbers of batches",
    ),
    "a shape": (
        {"image": np.zeros((4, 3, 4, 4)), "pose": np.zeros((4, 6))},
        (IMAGE, POSE),
        "pose in .* has the shape",
    ),
    "floats for bytes": (BYTES / 255, (FRAMES,), r"is float64.* takes uint8.*astype\('uint8'\)"),
    "values that are none": (
        {"image": np.zeros((2, 3, 4, 4)), "pose": np.full((4, 5), np.inf)},
        (IMAGE, POSE),
        "pose in .* not finite",
    ),
    "one number": (np.full((4, 6, 5, 3), 7, np.uint8), (FRAMES,), "holds nothing but the number 7"),
    "words": ({"image": "a", "pose": "b"}, (IMAGE, POSE), "accepted: a folder of images"),
    "no arrays": ({}, (FRAMES,), "holds no arrays"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_named_in_two_lines(case: str) -> None:
    source, inputs, said = REFUSED[case]
    with pytest.raises(ConfigError, match=said) as error:
        given(source, *inputs)
    assert len(str(error.value).splitlines()) <= 2


def test_bytes_are_taken_as_they_are() -> None:
    (found,) = given(BYTES, FRAMES)
    assert found.dtype == torch.uint8
    np.testing.assert_array_equal(found.numpy(), BYTES)


@pytest.mark.parametrize("shape", [(1, 3, 6, 5), (1, 6, 5, 3)], ids=["first", "last"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_folder_fills_inputs_of_bytes_and_of_channels_last(
    shape: tuple[int, ...], dtype: str, tmp_path: Path
) -> None:
    from PIL import Image

    for index in range(2):
        Image.new("RGB", (5, 6), (200, 0, 10 * index)).save(tmp_path / f"{index}.png")
    (found,) = given(tmp_path, TensorInfo(name="x", shape=shape, dtype=dtype))
    assert (tuple(found.shape), found.dtype) == ((2, *shape[1:]), getattr(torch, dtype))
    red, green, _ = (found[0] if shape[1] == 3 else found[0].permute(2, 0, 1)).unbind()
    if dtype == "uint8":
        assert (set(red.unique().tolist()), set(green.unique().tolist())) == ({200}, {0})
    else:
        torch.testing.assert_close(red, torch.full_like(red, (200 / 255 - 0.485) / 0.229))


def test_stand_ins_of_bytes_fill_their_range_where_the_channels_lie() -> None:
    (found,) = stand_ins(Dataflow(floats(camera(), (FRAME,)).module["main"]), {})
    assert (found.dtype, tuple(found.shape[1:])) == (torch.uint8, (12, 10, 3))
    assert (int(found.min()), int(found.max())) == (0, 255)
    # Neighbouring pixels are alike, as those of images are, and channels are not pixels.
    pixels = found.float()
    assert (pixels[:, :, 1:] - pixels[:, :, :-1]).abs().mean() < 0.6 * (
        pixels[torch.randperm(len(pixels))] - pixels
    ).abs().mean()


def test_stand_ins_of_several_inputs_differ_and_have_as_many_batches() -> None:
    ids = torch.zeros(1, 4, dtype=torch.int64)
    graph = Dataflow(floats(masked(), (*EXAMPLES, ids)).module["main"])
    image, mask, classes = stand_ins(graph, {})
    assert len(image) == len(mask) == len(classes) > 1
    assert classes.dtype == torch.int64
    assert not torch.equal(image[:, :1], mask)
    assert torch.equal(image, stand_ins(graph, {})[0])


def test_stand_ins_of_a_large_batch_repeat() -> None:
    batch = 3000
    net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2)).eval()
    (found,) = stand_ins(Dataflow(floats(net, (torch.zeros(batch, 3, 4, 4),)).module["main"]), {})
    shapes, noise = (found.numpy().reshape(2, batch, -1)[half] for half in range(2))
    for half in (shapes, noise):
        assert 200 < len(np.unique(half, axis=0)) <= 256


def test_batches_are_whole_and_lose_nothing() -> None:
    graph = Dataflow(floats(masked(), (*(x.repeat(3, 1, 1, 1) for x in EXAMPLES),)).module["main"])
    inputs = [torch.rand(12, *x.shape[1:]) for x in EXAMPLES]
    parts = in_batches(graph, inputs, 8)
    assert [len(image) for image, _ in parts] == [6, 6]
    for x, again in zip(inputs, zip(*parts, strict=True), strict=True):
        assert torch.equal(x, torch.cat(again))


def off(found: Any, expected: Any) -> float:
    """Of the range of the results."""
    expected = torch.as_tensor(expected)
    return float(
        (torch.as_tensor(found) - expected).abs().max() / torch.aminmax(expected).max.abs()
    )


@pytest.mark.parametrize("calibrated", [False, True], ids=["", "calibrated"])
def test_two_inputs_and_class_numbers_in_integers(calibrated: bool, tmp_path: Path) -> None:
    net, inputs = masked(), (*EXAMPLES, torch.tensor([[0, 1, 1, 1]]))
    if calibrated:
        # Ten times the usual values: only who reads them knows the range.
        inputs = (10 * inputs[0], *inputs[1:])
        names = ("image", "mask", "ids")
        arrays = {n: x.numpy().repeat(3, 0) for n, x in zip(names, inputs, strict=True)}
        np.savez(tmp_path / "x.npz", **arrays)
    calibration = tmp_path / "x.npz" if calibrated else None
    compiled = subpc.compile(net, inputs, precision="int8", calibration=calibration)
    assert {layer.precision for layer in compiled.report.layers if layer.kind == "conv"} == {"int8"}
    found, expected = compiled(*inputs)[0], net(*inputs)["features"].detach()
    assert 0 < off(found, expected) < 0.03


class Planar(nn.Module):
    """Bytes with their channels first."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = camera()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.inner(x.permute(0, 2, 3, 1))[2]
        return result


@pytest.mark.parametrize("planar", [False, True], ids=["channels last", "channels first"])
@pytest.mark.parametrize("calibrated", [False, True], ids=["", "calibrated"])
def test_images_of_bytes_in_integers(planar: bool, calibrated: bool) -> None:
    net, frame = (Planar(), FRAME.permute(0, 3, 1, 2)) if planar else (camera(), FRAME)
    calibration = frame.numpy() if calibrated else None
    compiled = subpc.compile(net, frame, precision="int8", calibration=calibration)
    assert {layer.precision for layer in compiled.report.layers if layer.kind == "conv"} == {"int8"}
    found, expected = compiled(frame), net(frame)
    if not planar:
        found, expected = found[2], expected[2]
    assert 0 < off(found, expected.detach()) < 0.03
