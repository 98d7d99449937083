"""Where a pixel of an activation tensor lies in memory: channel planes framed by zeros (the
halo)."""

from dataclasses import dataclass
from typing import Any

import numpy as np

# Bytes of a cache line, and of a float32.
LINE_BYTES, FLOAT = 64, 4
# A plane is stored in whole cache lines, of 16 floats ...
LINE = LINE_BYTES // FLOAT
# ... and an odd number of them, so that neighbouring channels of one pixel fall into different
# cache sets. Flat kernels store whole pixel tiles: up to MAX_TILE - 1 floats past the last row land
# in the plane's own slack.
MAX_TILE = 128


def round_up(value: int, unit: int) -> int:
    """The smallest multiple of `unit` that is not below `value`."""
    return -(-value // unit) * unit


def itemsize(dtype: str) -> int:
    """Bytes of one element of a type, as NumPy names it."""
    return int(np.dtype(dtype).itemsize)


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One channel plane of height x width pixels; pixel (y, x) is its element `first + y * pitch +
    x`.

    A framed plane (halo > 0) has `halo` zero rows above and below and `halo` zero columns between
    the rows, which serve as the right border of one row and the left border of the next. A compact
    plane (`plane == height * width`) is what PyTorch uses.
    """

    height: int
    width: int
    halo: int
    pitch: int
    first: int
    plane: int

    @property
    def pixels(self) -> int:
        """Length of the flat pixel range q = y * pitch + x that covers every pixel (border columns
        between rows included)."""
        return (self.height - 1) * self.pitch + self.width

    @property
    def compact(self) -> bool:
        """Whether the plane is laid out as PyTorch's contiguous NCHW, with no slack for whole
        vectors."""
        return self.plane == self.height * self.width


def compact_frame(height: int, width: int) -> Frame:
    """The layout of a contiguous NCHW tensor: model inputs, outputs, and operands of fallback
    kernels."""
    return Frame(height=height, width=width, halo=0, pitch=width, first=0, plane=height * width)


def halo_frame(height: int, width: int, halo: int, dtype: str = "float32") -> Frame:
    """The layout of the convolution kernels; `first` is line-aligned so that 1x1 convolutions load
    and store aligned vectors."""
    pitch, line = width + halo, LINE_BYTES // itemsize(dtype)
    first = round_up(halo * pitch + halo, line)
    body = first + height * pitch
    lines = (body + max(halo * pitch + halo, 0) + MAX_TILE) // line + 1
    return Frame(
        height=height, width=width, halo=halo, pitch=pitch, first=first, plane=(lines | 1) * line
    )


@dataclass(frozen=True, kw_only=True)
class TensorLayout:
    """A (batch, channels, height, width) tensor of one type: image after image, plane after
    plane."""

    batch: int
    channels: int
    frame: Frame
    dtype: str = "float32"

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(batch, channels, height, width)."""
        return self.batch, self.channels, self.frame.height, self.frame.width

    @property
    def image(self) -> int:
        """Elements from one image of the batch to the next."""
        return self.channels * self.frame.plane

    @property
    def elements(self) -> int:
        """Elements of the whole tensor, halo included."""
        return self.batch * self.image

    @property
    def plane_bytes(self) -> int:
        """Bytes from one channel to the next."""
        return self.frame.plane * itemsize(self.dtype)

    @property
    def image_bytes(self) -> int:
        """Bytes from one image of the batch to the next."""
        return self.channels * self.plane_bytes

    @property
    def bytes(self) -> int:
        """Bytes of the whole tensor."""
        return self.batch * self.image_bytes


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where pixel 0 of channel 0 is, in elements from the beginning of an operand; integers, or
    expressions of a task's number.

    x: of the source; y: of the result, and of the residual; mask: of a plane with 1 for pixels.
    """

    x: Any
    y: Any
    mask: Any


def whole(source: TensorLayout, out: TensorLayout) -> Origin:
    """The origin of a kernel that computes whole images."""
    first = out.frame.first
    return Origin(x=source.frame.first, y=first, mask=first)
