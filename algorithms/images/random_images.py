"""Random images, which statistics are taken from where none are given: no data, no optimisation,
the same in every run."""

import math

import numpy as np
import torch
from torch import nn

from subpc.algorithms.images.matched_images import moved
from subpc.algorithms.network.layer_noise import runs_on, working_shape
from subpc.progress import Progress, silent

# Shapes an image at most, the share of a new shape's radius to the side, and how much of what lies
# below shines through.
_SHAPES, _RADIUS, _THROUGH = 300, 0.04, 0.2
# Deviation of a channel's own part, the rest being common to all: channels of natural images are
# correlated.
_OWN = 0.5
# Pixels of all images together; the most and the fewest images; sides from here on are halved where
# the network allows it, because four times as many images give better statistics. Twice the pixels
# cost twice the time and memory for the same accuracy (docs/data_free.md).
_PIXELS, _MOST, _FEWEST, _LARGE = 64 * 112 * 112, 256, 16, 128
# Numbers of all images together (256 MiB), which the fewest of a huge input would exceed; so few
# images remain at least.
_VALUES, _LEAST = 1 << 26, 2

# What a report says of images that were given.
GIVEN = "given ones"


def random_shapes(
    count: int, channels: int, size: int | tuple[int, int], seed: int
) -> torch.Tensor:
    """Dead leaves (Lee, Mumford and Huang, 2001): discs and rectangles of many sizes that cover
    each other, mean 0, deviation 1.

    size: the side of a square, or (height, width): what is seen of shapes on a square of the longer
    side.
    """
    draw = torch.Generator().manual_seed(seed)
    images = smooth_noise(count, channels, size, draw) / 2
    for image in images.numpy():
        drawn = [
            _draw(channels, draw)
            for _ in range(int(torch.randint(1, _SHAPES, (1,), generator=draw)))
        ]
        values = _together(torch.stack([value for _, value in drawn])).numpy()
        for (numbers, _), value in zip(drawn, values, strict=True):
            _cover(image, numbers.numpy(), value)
    scaled: torch.Tensor = (images - images.mean()) / images.std()
    return scaled


def _draw(channels: int, draw: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Where and how large a shape is, and its colour (channels, 1, 1)."""
    return torch.rand(5, generator=draw), torch.randn(channels, 1, 1, generator=draw)


def _cover(image: np.ndarray, numbers: np.ndarray, value: np.ndarray) -> None:
    """Put one shape onto the upper left part (c, h, w) of a square with the longer side, in place;
    all numbers are float32. In NumPy, because there are thousands of small ones."""
    width, left, top, height, kind = numbers
    size, one = max(image.shape[1:]), np.float32(1)
    radius = one / (width + np.float32(0.06)) * np.float32(size * _RADIUS)
    middle, margin = (top * np.float32(size), left * np.float32(size)), np.float32(1.3) * radius
    rows, columns = (
        slice(max(0, int(at - margin)), min(side, int(at + margin) + 2))
        for at, side in zip(middle, image.shape[1:], strict=True)
    )
    y = np.abs(np.arange(rows.start, rows.stop, dtype=np.float32) - middle[0])[:, None]
    x = np.abs(np.arange(columns.start, columns.stop, dtype=np.float32) - middle[1])
    inside = (
        (x < radius) & (y < radius * (np.float32(0.3) + height))
        if kind < 0.5
        else x * x + y * y < radius * radius
    )
    here = image[:, rows, columns]
    np.copyto(here, here * np.float32(_THROUGH) + value, where=inside)


def smooth_noise(
    count: int, channels: int, size: int | tuple[int, int], draw: torch.Generator
) -> torch.Tensor:
    """(count, channels, height, width): noise whose amplitude falls with the frequency, as that of
    natural images does; deviation 1.

    size: the side of a square, or (height, width).
    """
    height, width = (size, size) if isinstance(size, int) else size
    frequency = (
        (torch.fft.fftfreq(height)[:, None] ** 2 + torch.fft.rfftfreq(width) ** 2)
        .sqrt()
        .clamp(min=1 / max(height, width))
    )
    white = torch.randn(count, channels, height, width, generator=draw)
    noise = torch.fft.irfft2(torch.fft.rfft2(white) / frequency, s=(height, width))
    noise = _together(noise / noise.std())
    scaled: torch.Tensor = noise / noise.std()
    return scaled


def _together(x: torch.Tensor) -> torch.Tensor:
    """Independent channels (..., c, h, w) or (c, 1) of variance 1, with a common part added, which
    correlates them; variance 1."""
    axis = max(x.dim() - 3, 0)
    channels = x.shape[axis]
    share = math.sqrt(1 - _OWN**2) / math.sqrt(channels)
    return (share * x.sum(axis, keepdim=True) + _OWN * x) / math.sqrt(1 + 2 * _OWN * share)


def random_images(
    model: nn.Module, shape: tuple[int, ...] | None, seed: int = 0
) -> torch.Tensor | None:
    """Shapes and noise in equal parts, (p, c, h, w), for a network with input `shape`; None where
    no input is found that it runs on.

    shape: (n, c, h, w), tried out where it is None. Large inputs are halved where the network runs
    on that, too.
    """
    shape = shape or working_shape(model)
    if shape is None or len(shape) != 4:
        return None
    _, channels, height, width = shape
    if min(height, width) >= _LARGE and runs_on(model, (1, channels, height // 2, width // 2)):
        height, width = height // 2, width // 2
    count, size = max(min(_PIXELS // (height * width), _MOST), _FEWEST), (height, width)
    count = min(count, max(_VALUES // (channels * height * width), _LEAST))
    shapes = random_shapes(count - count // 2, channels, size, seed)
    noise = smooth_noise(count // 2, channels, size, torch.Generator().manual_seed(seed))
    return torch.cat([shapes, noise])


def inputs_for(
    model: nn.Module,
    kind: str,
    images: torch.Tensor | None,
    shape: tuple[int, ...] | None,
    progress: Progress = silent,
) -> tuple[torch.Tensor | None, str]:
    """Images (p, c, h, w) to take statistics from, None for normal variables, and what a report
    says of them.

    images: those that are given, if any; else `kind`, one of config.INPUTS, and the input's `shape`
    (n, c, h, w) decide. Random ones stand in for matched ones where those are not to be had.
    """
    if images is not None:
        return images, GIVEN
    drawn = None if kind == "normal" else random_images(model, shape)
    if drawn is None:
        return None, "none"
    found = moved(model, drawn, progress) if kind == "matched" else None
    drawn, how = (drawn, "random") if found is None else (found, "generated")
    return drawn, f"none ({len(drawn)} {how} ones of {drawn.shape[3]}x{drawn.shape[2]})"
