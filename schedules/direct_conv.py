"""Convolution with output channels in the lanes, 1xN block-sparse or dense, fp32: for filters
larger than 1x1, and for strides.

The lanes of a vector are neighbouring OUTPUT CHANNELS; the weights of a tap are loaded as vectors,
and each input pixel is broadcast to all lanes. A register tile is `rows` x `columns` output pixels
of `vectors` vectors of channels, so no lane ever computes the padding between two rows, and the
pixels of a strided convolution are simply further apart. A broadcast pixel serves all taps of a
filter row that meet it: for 3x3 filters 16 broadcasts feed 42 multiply-adds. Where there is nothing
to share (1x1, stride 1) flat_conv.py, with pixels in the lanes, is faster.

Sparse as in flat_conv.py: group g of N output channels reads only the planes in `index[g]`. N has
to be a multiple of the lanes.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tvm
from tvm.tirx.script import builder as T

from subpc.schedules.block_conv import PREFETCH_WEIGHTS, BlockConv
from subpc.schedules.direct_tile import DirectTile
from subpc.schedules.isa import VectorIsa
from subpc.schedules.layout import Origin, whole
from subpc.schedules.operand import Operand, floats
from subpc.schedules.stage import Stage
from subpc.schedules.store_channels import by_channel, pieces_of, store_channels
from subpc.schedules.vector import Register, load, prefetch, splat

# Filters whose tile has more multiply-adds than this loop over their rows instead of unrolling
# them: the code has to stay in L1i.
MAX_UNROLLED_FMAS = 500
# Taps are asked whether they read the plane at all where the filter is at least this share of the
# plane in size.
MIN_REACH = 0.75


@dataclass(frozen=True, kw_only=True)
class DirectConv(BlockConv, Stage):
    """y[n, o, i, j] = epilogue(bias[o]
    + sum_{k, u, v} w[o, k, u, v] * x[n, channel(o, k), i * sy + u * dy - top, j * sx + v * dx -
    left]).

    The halo of `source` has to hold every padding pixel that is read. group, kept, uniform, sparse:
    as in BlockConv. With an epilogue in place the tile's columns have to divide the width.

    Operands: x, w ((group, row block, kept channel, tap, channel in the row block)), [index],
    [starts], bias, [residual], y.
    """

    SCHEDULES = "direct"

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    padding: tuple[int, int]  # rows above, columns to the left
    tile: DirectTile

    def __post_init__(self) -> None:
        if self.epilogue.in_place and self.out.frame.width % self.tile.columns:
            raise ValueError(
                f"{self.tile.columns} columns overlap in {self.out.frame.width}: the residual would"
                " be added twice"
            )

    @property
    def family(self) -> str:
        return "bsr_direct_conv_f32" if self.sparse else "dense_direct_conv_f32"

    @property
    def taps(self) -> int:
        return self.kernel[0] * self.kernel[1]

    @property
    def reads_much_padding(self) -> bool:
        """Whether the outer taps lie outside of the plane for a good part of the pixels."""
        reach = [(size - 1) * step for size, step in zip(self.kernel, self.dilation, strict=True)]
        plane = self.source.frame
        return max(reach) > 0 and min(reach) >= MIN_REACH * min(plane.height, plane.width)

    @property
    def flops(self) -> int:
        return self.flops_of(self.taps)

    def sizes(self) -> dict[str, Operand]:
        return self.operands_around(floats(self.blocks * self.taps * self.group), {}, {})

    def emit(self, b: dict[str, Any], isa: VectorIsa) -> None:
        DirectBody(self, isa.lanes, b).tasks()

    def emit_band(self, b: dict[str, Any], isa: VectorIsa, origin: Origin) -> None:
        DirectBody(self, isa.lanes, b, origin).band()

    def follows(self, before: Stage, kept: bool) -> bool:
        return self.kernel == (1, 1) and self.stride == (1, 1) and self.padding == (0, 0)

    @property
    def row_stride(self) -> int:
        return self.stride[0]


class DirectBody:
    """Emits the loops of one kernel; `b` are its operands by name."""

    def __init__(
        self, kernel: DirectConv, lanes: int, b: dict[str, Any], origin: Origin | None = None
    ) -> None:
        self.kernel, self.lanes, self.buffers = kernel, lanes, b
        # A band's rows are counted from its own beginning: there nothing is known about padding.
        self.skips_padding = origin is None and kernel.reads_much_padding
        self.origin = origin or whole(kernel.source, kernel.out)
        self.channels = kernel.tile.vectors * lanes
        self.blocks = kernel.out.channels // self.channels
        frame = kernel.out.frame
        self.across = -(-frame.width // kernel.tile.columns)
        self.tiles = -(-frame.height // kernel.tile.rows) * self.across

    def tasks(self) -> None:
        """One parallel loop over (image, pixel tile, row block); a pixel in two tiles gets the same
        value from both."""
        with T.parallel(0, self.kernel.out.batch * self.tiles * self.blocks) as task:
            self.task(task // (self.tiles * self.blocks), task % (self.tiles * self.blocks))

    def band(self) -> None:
        """The whole image, or the band that is left of it, in one task."""
        with T.serial(0, self.tiles * self.blocks) as task:
            self.task(0, task)

    def task(self, image: Any, rest: Any) -> None:
        """One pixel tile and row block of an image."""
        tile, frame, tiles, blocks = (
            self.kernel.tile,
            self.kernel.out.frame,
            self.tiles,
            self.blocks,
        )
        number, block = (
            (rest // blocks, rest % blocks) if tile.pixels_outer else (rest % tiles, rest // tiles)
        )
        y, x = number // self.across * tile.rows, number % self.across * tile.columns
        if frame.width % tile.columns:
            x = tvm.tirx.min(x, frame.width - tile.columns)
        rest_rows = frame.height % tile.rows
        if rest_rows == 0:
            self.register_tile(image, y, x, block, tile.rows)
            return
        with T.If(y + tile.rows <= frame.height):
            with T.Then():
                self.register_tile(image, y, x, block, tile.rows)
            with T.Else():
                self.register_tile(image, y, x, block, rest_rows)

    def register_tile(self, image: Any, y: Any, x: Any, block: Any, rows: int) -> None:
        """Compute `rows` x `columns` pixels from (y, x) on of the row block `block`."""
        k, columns, vectors = self.kernel, self.kernel.tile.columns, self.kernel.tile.vectors
        per_group = k.group // self.channels
        group, part = block // per_group, block % per_group
        self.prefetch_output(image, y, x, block, rows)
        acc = []  # (vectors, rows, columns)
        for v in range(vectors):
            bias = load(self.buffers["bias"], block * self.channels + v * self.lanes, self.lanes)
            acc += [Register(self.lanes, bias) for _ in range(rows * columns)]
        first, count = k.kept_of(self.buffers, group)
        panel = first * per_group + part * count
        frame = k.source.frame
        corner = (
            self.origin.x
            + (y * k.stride[0] - k.padding[0]) * frame.pitch
            + (x * k.stride[1] - k.padding[1])
        )
        with T.serial(0, count) as kept:
            channel = k.channel_at(self.buffers, first, kept, frame.plane)
            pixel = image * k.source.image + corner
            weight = (panel + kept) * (k.taps * self.channels)
            if k.tile.prefetch and not self.skips_padding:  # its rows lie too far apart
                later = k.channel_at(self.buffers, first, kept + k.tile.prefetch, frame.plane)
                self.prefetch_input(pixel + later, rows)
            prefetch(
                self.buffers["w"], weight + PREFETCH_WEIGHTS, k.taps * self.channels, write=False
            )
            if self.skips_padding:
                self.multiply_add_inside(acc, pixel + channel, weight, rows, (y, x))
            else:
                self.multiply_add(acc, pixel + channel, weight, rows)
        for v in range(vectors):
            sums = acc[v * rows * columns : (v + 1) * rows * columns]
            self.epilogue(sums, image, y, x, block * self.channels + v * self.lanes)

    def multiply_add(self, acc: list[Register], pixel: Any, weight: Any, rows: int) -> None:
        """acc += w[tap, :] * x[pixel + offset] for all taps of one input channel."""
        height, width = self.kernel.kernel
        pitch = self.kernel.source.frame.pitch * self.kernel.dilation[0]
        if height > 1 and len(acc) * self.kernel.taps > MAX_UNROLLED_FMAS:
            with T.serial(0, height) as u:
                self.filter_row(acc, pixel + u * pitch, weight + u * (width * self.channels), rows)
        else:
            for u in range(height):
                self.filter_row(acc, pixel + u * pitch, weight + u * width * self.channels, rows)

    def multiply_add_inside(
        self, acc: list[Register], pixel: Any, weight: Any, rows: int, corner: tuple[Any, Any]
    ) -> None:
        """The same for the taps that read pixels of the plane for any of the tile's pixels, of
        which `corner` is the first."""
        k, frame, size = self.kernel, self.kernel.source.frame, (rows, self.kernel.tile.columns)
        pitch = frame.pitch * k.dilation[0]
        for u, v in itertools.product(*map(range, k.kernel)):
            inside = []
            for axis, (tap, extent) in enumerate(((u, frame.height), (v, frame.width))):
                first = corner[axis] * k.stride[axis] + (tap * k.dilation[axis] - k.padding[axis])
                inside += [first < extent, first + (size[axis] - 1) * k.stride[axis] >= 0]
            with T.If(tvm.tirx.all(*inside)), T.Then():
                row = weight + u * k.kernel[1] * self.channels
                self.filter_row(acc, pixel + u * pitch, row, rows, taps=(v,))

    def filter_row(
        self,
        acc: list[Register],
        pixel: Any,
        weight: Any,
        rows: int,
        taps: Sequence[int] | None = None,
    ) -> None:
        """Some taps of one filter row, or all: every input pixel is broadcast once, to all taps
        that meet it."""
        k, vectors = self.kernel, range(self.kernel.tile.vectors)
        taps = range(k.kernel[1]) if taps is None else taps
        w = {
            tap: [
                load(self.buffers["w"], weight + (tap * self.channels + v * self.lanes), self.lanes)
                for v in vectors
            ]
            for tap in taps
        }
        area = rows * k.tile.columns
        for r in range(rows):
            for offset, uses in self.readers(taps).items():
                at = pixel + (r * k.stride[0] * k.source.frame.pitch + offset)
                x = splat(self.buffers["x"][at], self.lanes)
                for column, tap in uses:
                    for v in vectors:
                        register = acc[v * area + r * k.tile.columns + column]
                        register.set(register.get() + w[tap][v] * x)

    def readers(self, taps: Sequence[int]) -> dict[int, list[tuple[int, int]]]:
        """For each pixel of an input row that a tile reads, from left to right: the (output column,
        tap) pairs that use it."""
        k = self.kernel
        uses: dict[int, list[tuple[int, int]]] = {}
        for column, tap in itertools.product(range(k.tile.columns), taps):
            uses.setdefault(column * k.stride[1] + tap * k.dilation[1], []).append((column, tap))
        return dict(sorted(uses.items()))

    def prefetch_input(self, pixel: Any, rows: int) -> None:
        """Ask for the input rows of a tile whose first pixel is `pixel`."""
        k = self.kernel
        for row in range((rows - 1) * k.stride[0] + (k.kernel[0] - 1) * k.dilation[0] + 1):
            width = (k.tile.columns - 1) * k.stride[1] + 1
            prefetch(self.buffers["x"], pixel + row * k.source.frame.pitch, width, write=False)

    def prefetch_output(self, image: Any, y: Any, x: Any, block: Any, rows: int) -> None:
        """Ask for the lines of the tile: they may be in another core's cache."""
        for channel in range(self.channels):
            for r in range(rows):
                at = self.out_index(image, y + r, x, block * self.channels + channel)
                prefetch(self.buffers["y"], at, 1, write=True)
                if self.kernel.epilogue.operand == "residual":
                    prefetch(self.buffers["residual"], at, 1, write=False)

    def out_index(self, image: Any, y: Any, x: Any, channel: Any) -> Any:
        out, pitch = self.kernel.out, self.kernel.out.frame.pitch
        return image * out.image + channel * out.frame.plane + self.origin.y + y * pitch + x

    def epilogue(self, acc: list[Register], image: Any, y: Any, x: Any, channel: Any) -> None:
        """Turn pixels x channels into channels x pixels; residual add, activation, store."""

        def place(number: int, row: int, column: int) -> Any:
            return self.out_index(image, y + row, x + column, channel + number)

        for start in range(0, len(acc), self.lanes):
            pixels = acc[start : start + self.lanes]
            pieces = pieces_of(start, len(pixels), self.kernel.tile.columns, self.lanes)
            store_channels(
                by_channel(pixels, self.lanes), pieces, place, self.kernel.epilogue, self.buffers
            )
