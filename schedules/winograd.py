"""3x3 convolution by Winograd's F(2x2, 3x3), 1xN block-sparse or dense, fp32: 16 multiplications
for four output pixels instead of 36.

A tile is 2x2 output pixels. Its 4x4 input pixels d, and each filter g, are transformed once, V =
B^T d B and U = G g G^T; at each of the 16 positions of a tile the sum over input channels is then a
matrix product, and the output pixels are A^T M A (Lavin and Gray, "Fast Algorithms for
Convolutional Neural Networks", 2015, equations 8 to 10). The lanes of a vector are neighbouring
tiles in the first transform, and neighbouring OUTPUT CHANNELS in the products and in the last
transform.

Sparse as in direct_conv.py: a filter that reads nothing of an input channel has nothing to
transform there either, so a pattern of 1xN blocks is the same pattern at every position, and group
g of N output channels sums over the channels in `index[g]` only.

Rounding errors are those of a direct convolution, relative to a tile's largest pixel; a NaN or an
infinity reaches all its four pixels.
"""

import itertools
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.tirx.script import builder as T

from subpc.schedules.activation import constant
from subpc.schedules.block_conv import BlockConv
from subpc.schedules.isa import VectorIsa
from subpc.schedules.kernel import thread_buffers
from subpc.schedules.layout import LINE
from subpc.schedules.operand import Operand, floats
from subpc.schedules.store_channels import by_channel, pieces_of, store_channels
from subpc.schedules.vector import Register, load, put, splat, store, units
from subpc.schedules.winograd_tile import WinogradTile
from subpc.schedules.winograd_transforms import (
    POSITIONS,
    READ,
    STEP,
    input_positions,
    output_pixels,
    slots,
    tiles_of,
    transformed_line,
)

# Nanoseconds that the transform of a row of tiles of one channel takes: enough to size tasks.
TRANSFORM_NS = 15.0


@dataclass(frozen=True, kw_only=True)
class WinogradConv(BlockConv):
    """y[n, o, i, j] = epilogue(bias[o] + sum_{k, u, v} w[o, k, u, v] * x[n, channel(o, k), i + u -
    top, j + v - left]).

    The halo of `source` has to hold every padding pixel that is read, and `fits` has to be true.
    group, kept, uniform, sparse: as in BlockConv. With an epilogue in place register tiles must not
    overlap.

    Operands: x, w (transformed filters: (group, row block, position, kept channel, channel in the
    row block)), [index: `channel_floats` times the kept channels], [starts], bias, [residual], v
    (memory for the transformed input of one band), y.
    """

    SCHEDULES = "winograd"

    padding: tuple[int, int]  # rows above, columns to the left
    tile: WinogradTile

    def __post_init__(self) -> None:
        tiles = tiles_of(self.out)
        if self.epilogue.in_place and (tiles[0] % self.tile.rows or tiles[1] % self.tile.columns):
            raise ValueError(
                f"{self.tile.rows}x{self.tile.columns} tiles overlap in {tiles}: the residual would"
                " be added twice"
            )
        if self.grid[0] % self.tile.bands:
            raise ValueError(
                f"{self.grid[0]} rows of register tiles are not {self.tile.bands} equal bands"
            )
        if self.tile.blocks > self.band_blocks:
            raise ValueError(
                f"a task of {self.tile.blocks} register tiles; a band has {self.band_blocks}"
            )

    @property
    def family(self) -> str:
        return "bsr_winograd_conv_f32" if self.sparse else "dense_winograd_conv_f32"

    @property
    def channel_floats(self) -> int:
        """Floats from one input channel of a transformed register tile to the next."""
        return self.tile.rows * slots(self.tile.columns)

    @property
    def position_floats(self) -> int:
        """Floats from one position of a transformed register tile to the next: no power of two,
        which would be one set of the cache."""
        return self.source.channels * self.channel_floats + LINE

    @property
    def grid(self) -> tuple[int, int]:
        """Register tiles down and across the image."""
        down, across = tiles_of(self.out)
        return -(-down // self.tile.rows), -(-across // self.tile.columns)

    @property
    def band_blocks(self) -> int:
        """Register tiles of a band."""
        return self.grid[0] // self.tile.bands * self.grid[1]

    @property
    def flops(self) -> int:
        """Of the direct convolution: what a user compares."""
        return self.flops_of(9)

    def sizes(self) -> dict[str, Operand]:
        scratch = {"v": floats(self.band_blocks * POSITIONS * self.position_floats)}
        return self.operands_around(floats(POSITIONS * self.blocks * self.group), {}, scratch)

    def emit(self, b: dict[str, Any], isa: VectorIsa) -> None:
        _Body(self, isa.lanes, b).emit()


class _Body:
    """Emits the loops of one kernel; `b` are its operands by name."""

    def __init__(self, kernel: WinogradConv, lanes: int, b: dict[str, Any]) -> None:
        self.kernel, self.lanes, self.buffers = kernel, lanes, b
        self.channels = kernel.tile.vectors * lanes
        self.slots = slots(kernel.tile.columns)
        self.per_group = kernel.group // self.channels
        self.tiles = kernel.tile.rows * kernel.tile.columns
        self.band_rows = kernel.grid[0] // kernel.tile.bands

    def emit(self) -> None:
        """Image after image, band after band: transform what the band reads, then everything that
        is made of it."""
        k, channels = self.kernel, self.kernel.source.channels
        with T.serial(0, k.out.batch * k.tile.bands) as step:
            image, band = step // k.tile.bands, step % k.tile.bands
            with units(k.band_blocks * channels, TRANSFORM_NS * k.tile.rows) as unit:
                self.transform_input(image, band, unit // channels, unit % channels)
            self.products(image, band)

    def corner(self, band: Any, block: Any) -> tuple[Any, Any]:
        """The first tile of a register tile, (row, column); the last ones of the image overlap
        their neighbours."""
        tile, (down, across) = self.kernel.tile, tiles_of(self.kernel.out)
        y = (band * self.band_rows + block // self.kernel.grid[1]) * tile.rows
        x = block % self.kernel.grid[1] * tile.columns
        y = tirx.min(y, down - tile.rows) if down % tile.rows else y
        return y, tirx.min(x, across - tile.columns) if across % tile.columns else x

    def transform_input(self, image: Any, band: Any, block: Any, channel: Any) -> None:
        """V of one channel of a register tile: rows of tiles are vectors."""
        k, frame, size = self.kernel, self.kernel.source.frame, self.slots
        y, x = self.corner(band, block)
        first = image * k.source.image + channel * frame.plane + frame.first
        first = first + (y * STEP - k.padding[0]) * frame.pitch + (x * STEP - k.padding[1])
        position = k.position_floats
        into = block * POSITIONS * position + channel * k.channel_floats
        lines = [
            transformed_line(self.buffers["x"], first + row * frame.pitch, size)
            for row in range(STEP * k.tile.rows + READ - STEP)
        ]
        for row in range(k.tile.rows):
            for number, value in input_positions(lines[STEP * row : STEP * row + READ], size):
                put(self.buffers["v"], into + number * position + row * size, value.get(), size)

    def products(self, image: Any, band: Any) -> None:
        """One parallel loop over (some register tiles, block of output channels)."""
        k, tile = self.kernel, self.kernel.tile
        groups, parts = -(-k.band_blocks // tile.blocks), k.out.channels // self.channels
        memory = [
            floats(tile.blocks * POSITIONS * self.tiles * self.channels),
            floats(STEP * STEP * self.tiles * self.lanes),
        ]
        with T.parallel(0, groups * parts) as task:
            by_group = (task // parts, task % parts)
            group, part = by_group if tile.pixels_outer else (task % groups, task // groups)
            start = group * tile.blocks
            if k.band_blocks % tile.blocks:
                start = tirx.min(start, k.band_blocks - tile.blocks)
            with thread_buffers(memory) as (sums, results):
                with T.serial(0, POSITIONS) as position, T.serial(0, tile.blocks) as block:
                    self.register_tile(sums, start + block, block, position, part)
                with T.serial(0, tile.blocks) as block, T.serial(0, tile.vectors) as vector:
                    corner = self.corner(band, start + block)
                    channel = part * self.channels + vector * self.lanes
                    self.transform_output(sums, results, block, vector, channel)
                    self.epilogue(results, image, corner, channel)

    def register_tile(self, sums: Any, block: Any, number: Any, position: Any, part: Any) -> None:
        """sums[number, position, tile, :] = sum over input channels of V times U."""
        k, tile = self.kernel, self.kernel.tile
        group = part // self.per_group
        first, count = k.kept_of(self.buffers, group)
        panel = (
            first * self.per_group + part % self.per_group * count
        ) * POSITIONS + position * count
        acc = [
            [Register(self.lanes, constant(0.0, self.lanes)) for _ in range(tile.vectors)]
            for _ in range(self.tiles)
        ]
        v = (block * POSITIONS + position) * k.position_floats
        places = [
            row * self.slots + column
            for row, column in itertools.product(range(tile.rows), range(tile.columns))
        ]
        with T.serial(0, count) as kept:
            w = [
                load(self.buffers["w"], (panel + kept) * self.channels + i * self.lanes, self.lanes)
                for i in range(tile.vectors)
            ]
            channel = k.channel_at(self.buffers, first, kept, k.channel_floats)
            for registers, place in zip(acc, places, strict=True):
                x = splat(self.buffers["v"][v + channel + place], self.lanes)
                for i, register in enumerate(registers):
                    register.set(register.get() + w[i] * x)
        into = (number * POSITIONS + position) * self.tiles * self.channels
        for t, registers in enumerate(acc):
            for i, register in enumerate(registers):
                store(sums, into + t * self.channels + i * self.lanes, register.get(), self.lanes)

    def transform_output(
        self, sums: Any, results: Any, block: Any, vector: Any, channel: Any
    ) -> None:
        """results[pixel of the register tile, :] = bias + A^T M A, for one vector of output
        channels."""
        tile, lanes, width = self.kernel.tile, self.lanes, STEP * self.kernel.tile.columns
        bias = Register(lanes, load(self.buffers["bias"], channel, lanes))
        with T.serial(0, tile.rows) as row, T.serial(0, tile.columns) as column:
            first = (
                block * POSITIONS * self.tiles + row * tile.columns + column
            ) * self.channels + vector * lanes
            m = [
                Register(lanes, load(sums, first + p * self.tiles * self.channels, lanes))
                for p in range(POSITIONS)
            ]
            for i, j, value in output_pixels(m, lanes):
                at = (STEP * row + i) * width + STEP * column + j
                store(results, at * lanes, value.get() + bias.get(), lanes)

    def epilogue(self, results: Any, image: Any, corner: tuple[Any, Any], channel: Any) -> None:
        """Turn pixels x channels into channels x pixels, row by row: residual add, activation,
        store."""
        k, frame, lanes = self.kernel, self.kernel.out.frame, self.lanes
        width = STEP * k.tile.columns
        y, x = corner[0] * STEP, corner[1] * STEP
        with T.serial(0, STEP * k.tile.rows) as row:
            plane = image * k.out.image + channel * frame.plane + frame.first
            at = plane + (y + row) * frame.pitch + x
            for start in range(0, width, lanes):
                count = min(lanes, width - start)
                pixels = [
                    Register(lanes, load(results, (row * width + start + i) * lanes, lanes))
                    for i in range(count)
                ]
                channels = by_channel(pixels, lanes)
                ends = start + count == width and frame.width % STEP
                with T.If(y + row < frame.height), T.Then():
                    if not ends:
                        self.store_rows(channels, at + start, count)
                        continue
                    with T.If(x + width <= frame.width):
                        with T.Then():
                            self.store_rows(channels, at + start, count)
                        with T.Else():
                            self.store_rows(channels, at + start, count - 1)

    def store_rows(self, channels: list[Register], at: Any, count: int) -> None:
        """`count` pixels of a row, in every channel of a vector."""
        k = self.kernel

        def place(number: int, _: int, column: int) -> Any:
            return at + number * k.out.frame.plane + column

        pieces = pieces_of(0, count, count, self.lanes)
        store_channels(channels, pieces, place, k.epilogue, self.buffers)
