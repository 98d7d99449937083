"""Images as inputs of whatever network: channels first or last, numbers or bytes, grey, coloured,
or with transparency."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from subpc.errors import ConfigError
from subpc.images.prepare import Preparation, cut, open_rgb, scaled
from subpc.library.report import TensorInfo

_CHANNELS = (1, 3, 4)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where an input has its channels, height and width. last: channels behind the pixels."""

    channels: int
    height: int
    width: int
    last: bool


def layout_of(info: TensorInfo) -> Layout:
    """How images lie in an input (n, c, h, w) or (n, h, w, c); ConfigError where it takes none."""
    if len(info.shape) == 4:
        _, *rest = info.shape
        orders = [Layout(channels=rest[0], height=rest[1], width=rest[2], last=False)]
        orders.append(Layout(channels=rest[2], height=rest[0], width=rest[1], last=True))
        fitting = [order for order in orders if order.channels in _CHANNELS]
        # Of two that fit, the one with channels fewer than pixels: 1 or 3 rows are no image.
        if fitting:
            return min(fitting, key=lambda order: order.channels)
    raise ConfigError(
        "an image needs an input of shape (n, channels, height, width) or (n, height, width,"
        f" channels) with 1, 3 or 4 channels; {info.name} is {info.shape}; give an array with"
        " --input FILE.npy"
    )


def is_channels_last(info: TensorInfo) -> bool:
    """Whether an input takes images with their channels behind the pixels."""
    try:
        return layout_of(info).last
    except ConfigError:
        return False


def image_input(
    path: str | Path, info: TensorInfo, how: Preparation, size: int | None = None
) -> npt.NDArray[Any]:
    """The image as the input `info`, the same one for each of a batch.

    how.size is replaced by the network's. A square is cut as `Preparation` says; another shape is
    filled by stretching. Grey networks get the grey value, normalised with the first mean and
    deviation; the fourth channel is the opacity from 0 to 1. Networks that take integers get bytes
    as they are.
    """
    layout = layout_of(info)
    if size is not None:
        layout = replace(layout, height=size, width=size)
    pixels = _pixels(path, layout, how)
    result: npt.NDArray[Any] = _normal(pixels, how) if info.dtype.startswith("float") else pixels
    result = result.astype(info.dtype)
    result = result if layout.last else result.transpose(2, 0, 1)
    return np.ascontiguousarray(np.repeat(result[None], info.shape[0], axis=0))


def _pixels(path: str | Path, layout: Layout, how: Preparation) -> npt.NDArray[np.uint8]:
    """(height, width, channels) bytes."""
    image = open_rgb(path, transparency=layout.channels == 4)
    if layout.channels == 1:
        image = image.convert("L")
    square = layout.width == layout.height
    image = (
        cut(image, replace(how, size=layout.width))
        if square
        else scaled(image, (layout.width, layout.height), how)
    )
    return np.asarray(image).reshape(layout.height, layout.width, layout.channels)


def _normal(pixels: npt.NDArray[np.uint8], how: Preparation) -> npt.NDArray[np.float32]:
    channels = pixels.shape[2]
    mean = np.array((*how.mean, 0.0)[:channels], np.float32)
    std = np.array((*how.std, 1.0)[:channels], np.float32)
    return np.asarray((pixels.astype(np.float32) / 255 - mean) / std, np.float32)
