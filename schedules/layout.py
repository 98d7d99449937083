"""Where a pixel of an activation tensor lies in memory: channel planes framed by zeros (the halo)."""

from dataclasses import dataclass
from typing import Any

# A plane is stored in whole cache lines of 16 floats ...
LINE = 16
# ... and an odd number of them, so that neighbouring channels of one pixel fall into different cache sets.
# Flat kernels store whole pixel tiles: up to MAX_TILE - 1 floats past the last row land in the plane's own slack.
MAX_TILE = 128


def round_up(value: int, unit: int) -> int:
    """The smallest multiple of `unit` that is not below `value`."""
    return -(-value // unit) * unit


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One channel plane of height x width pixels; pixel (y, x) lies at `first + y * pitch + x` floats.

    A framed plane (halo > 0) has `halo` zero rows above and below and `halo` zero columns between the rows, which serve as the
    right border of one row and the left border of the next. A compact plane (`plane == height * width`) is what PyTorch uses.
    """

    height: int
    width: int
    halo: int
    pitch: int
    first: int
    plane: int

    @property
    def pixels(self) -> int:
        """Length of the flat pixel range q = y * pitch + x that covers every pixel (border columns between rows included)."""
        return (self.height - 1) * self.pitch + self.width

    @property
    def compact(self) -> bool:
        """Whether the plane is laid out as PyTorch's contiguous NCHW, with no slack for whole vectors."""
        return self.plane == self.height * self.width


def compact_frame(height: int, width: int) -> Frame:
    """The layout of a contiguous NCHW tensor: model inputs, outputs, and operands of fallback kernels."""
    return Frame(height=height, width=width, halo=0, pitch=width, first=0, plane=height * width)


def halo_frame(height: int, width: int, halo: int) -> Frame:
    """The layout of the convolution kernels; `first` is line-aligned so that 1x1 convolutions load and store aligned vectors."""
    pitch = width + halo
    first = round_up(halo * pitch + halo, LINE)
    body = first + height * pitch
    lines = (body + max(halo * pitch + halo, 0) + MAX_TILE) // LINE + 1
    return Frame(height=height, width=width, halo=halo, pitch=pitch, first=first, plane=(lines | 1) * LINE)


@dataclass(frozen=True, kw_only=True)
class TensorLayout:
    """An (batch, channels, height, width) float32 tensor: image after image, plane after plane."""

    batch: int
    channels: int
    frame: Frame

    @property
    def image(self) -> int:
        """Floats from one image of the batch to the next."""
        return self.channels * self.frame.plane

    @property
    def floats(self) -> int:
        """Floats of the whole tensor."""
        return self.batch * self.image


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where pixel 0 of channel 0 is, in floats from the beginning of an operand; integers, or expressions of a task's number.

    x: of the source; y: of the result, and of the residual; mask: of a plane with 1 for pixels.
    """

    x: Any
    y: Any
    mask: Any


def whole(source: TensorLayout, out: TensorLayout) -> Origin:
    """The origin of a kernel that computes whole images."""
    first = out.frame.first
    return Origin(x=source.frame.first, y=first, mask=first)
