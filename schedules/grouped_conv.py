"""Depthwise convolution, and grouped convolution with few channels a group, on framed planes.

The lanes are neighbouring output pixels of one row; a register tile is several output rows of one
channel. Neighbouring output rows share most of their input rows, so each loaded vector meets up to
kh accumulators: loads, not multiply-adds, would limit a kernel that works pixel by pixel. Stride 2
sorts even and odd columns with a shuffle after two loads, which neighbouring taps share.
"""

from dataclasses import dataclass, replace
from typing import Any

from tvm import tirx
from tvm.tirx.script import builder as T

from subpc.schedules.grouped_shape import GroupedShape
from subpc.schedules.grouped_tile import DEFAULT_TILE, GroupedTile, default_rows
from subpc.schedules.isa import VectorIsa
from subpc.schedules.layout import Origin, TensorLayout, whole
from subpc.schedules.operand import Operand, floats, tensor
from subpc.schedules.stage import Rows, Stage
from subpc.schedules.vector import (
    Register,
    fetch,
    load,
    plane_rows,
    prefetch,
    put_first,
    shuffle,
    splat,
    units,
)

# What a vector of outputs costs besides its multiply-adds: enough to size tasks.
VECTOR_NS = 1.0


@dataclass(frozen=True, kw_only=True)
class GroupedConv(GroupedShape, Stage):
    """y[n, o] = epilogue(bias[o] + sum over channels c of o's group and taps t of w[o, c, t] * x[n,
    c, t]).

    Operands: x, w (c_out, c_in / groups, kh, kw: as PyTorch has it), bias (c_out), [residual, laid
    out as y], y.
    """

    SCHEDULES = "grouped"

    tile: GroupedTile = DEFAULT_TILE

    @property
    def family(self) -> str:
        return f"{self.kind}_f32"

    def sizes(self) -> dict[str, Operand]:
        weights = floats(self.out.channels * self.per_group * self.taps)
        sizes = {"x": tensor(self.source), "w": weights, "bias": floats(self.out.channels)}
        return sizes | self.epilogue.operands(self.out) | {"y": tensor(self.out)}

    def settled_tile(self, isa: VectorIsa) -> GroupedTile:
        return replace(self.tile, rows=self.tile.rows or default_rows(self.out.frame.height, isa))

    def emit(self, b: dict[str, Any], isa: VectorIsa) -> None:
        GroupedBody(self, isa, b).tasks()

    def emit_band(self, b: dict[str, Any], isa: VectorIsa, origin: Origin) -> None:
        GroupedBody(self, isa, b, origin).band()

    def follows(self, before: Stage, kept: bool) -> bool:
        """Depthwise, and rows outside of the image are zeros that the layer before has written for
        it."""
        depthwise = self.groups == self.source.channels == self.out.channels
        return depthwise and before.zeros_rows and not kept

    @property
    def row_stride(self) -> int:
        return self.stride[0]

    @property
    def overlaps(self) -> bool:
        return True

    def rows_read(self, rows: Rows) -> Rows:
        stride, reach = self.stride[0], (self.kernel[0] - 1) * self.dilation[0]
        offset = rows.offset * stride - self.padding[0]
        count = (rows.count - 1) * stride + reach + 1
        return Rows(scale=rows.scale * stride, offset=offset, count=count)

    def banded(self, source: TensorLayout, out: TensorLayout, *, own_rows: bool) -> "GroupedConv":
        """The rows above are among its own rows: nothing is padded there."""
        padding = (0, self.padding[1]) if own_rows else self.padding
        return replace(self, source=source, out=out, padding=padding)


class GroupedBody:
    """Emits the loops of one kernel; `b` are its operands by name."""

    def __init__(
        self, conv: GroupedConv, isa: VectorIsa, b: dict[str, Any], origin: Origin | None = None
    ) -> None:
        self.origin = origin or whole(conv.source, conv.out)
        self.kernel, self.buffers, self.isa = conv, b, isa
        self.lanes = isa.lanes // 2 if conv.tile.narrow else isa.lanes
        height = conv.out.frame.height
        self.rows = min(conv.tile.rows or default_rows(height, isa), height)

    def tasks(self) -> None:
        """One loop over (image, output channel, block of rows)."""
        k, height = self.kernel, self.kernel.out.frame.height
        tiles = -(-height // self.rows)
        vectors = -(-k.out.frame.width // self.lanes) * self.rows
        cost = vectors * (VECTOR_NS + self.isa.fma_ns * k.per_group * k.kernel[0] * k.kernel[1])
        # Tiles that overlap (their number of rows does not divide the height) stay in one task.
        blocks = tiles if height % self.rows == 0 else 1
        planes = k.out.batch * k.out.channels
        if k.tile.rows_outer and blocks > 1:
            with units(planes * blocks, cost) as unit:
                self.row_tile(unit % planes, unit // planes * self.rows)
            return
        with plane_rows(planes, blocks, cost * tiles / blocks) as (plane, block):
            if blocks == tiles:
                self.row_tile(plane, block * self.rows)
            else:
                self.plane(plane)

    def band(self) -> None:
        """The whole image, or the band that is left of it, in one task."""
        with T.serial(0, self.kernel.out.channels) as plane:
            self.plane(plane)

    def plane(self, plane: Any) -> None:
        """All rows of one output plane; the last tile may overlap the one before it."""
        height = self.kernel.out.frame.height
        with T.serial(0, -(-height // self.rows)) as tile:
            row = tile * self.rows
            self.row_tile(plane, tirx.min(row, height - self.rows) if height % self.rows else row)

    def row_tile(self, plane: Any, row: Any) -> None:
        """All columns of `rows` output rows; the last vector of a row overlaps its neighbour."""
        width = self.kernel.out.frame.width
        vectors = -(-width // self.lanes)
        if vectors == 1:
            self.tile(plane, row, 0)
        else:
            with T.serial(0, vectors) as i:
                column, last = i * self.lanes, width - self.lanes
                self.tile(plane, row, tirx.min(column, last) if width % self.lanes else column)

    def tile(self, plane: Any, row: Any, column: Any) -> None:
        k, source = self.kernel, self.kernel.source.frame
        channel = k.channel_of(plane)
        bias = splat(self.buffers["bias"][channel], self.lanes)
        sums = [Register(self.lanes, bias) for _ in range(self.rows)]
        at = (row * k.stride[0] - k.padding[0]) * source.pitch + (
            column * k.stride[1] - k.padding[1] + self.origin.x
        )
        taps, first = k.taps, k.input_plane(plane)
        if k.tile.prefetch:
            self.ask_ahead(first * source.plane + at, plane, row, column)
        if k.per_group == 1:
            self.multiply_add(sums, first * source.plane + at, channel * taps)
        else:
            with T.serial(0, k.per_group) as c:
                weight = (channel * k.per_group + c) * taps
                self.multiply_add(sums, (first + c) * source.plane + at, weight)
        self.epilogue(sums, plane, row, column)

    def ask_ahead(self, at: Any, plane: Any, row: Any, column: Any) -> None:
        """Prefetch the input of a later tile, and the lines that this one will write."""
        k, source, out = self.kernel, self.kernel.source.frame, self.kernel.out.frame
        whole = out.height == self.rows or k.tile.rows_outer
        later = at + k.tile.prefetch * (
            source.plane * k.per_group if whole else self.rows * k.stride[0] * source.pitch
        )
        width = (self.lanes - 1) * k.stride[1] + 1
        for r in range((self.rows - 1) * k.stride[0] + (k.kernel[0] - 1) * k.dilation[0] + 1):
            prefetch(self.buffers["x"], later + r * source.pitch, width, write=False)
        for r in range(self.rows):
            line = plane * out.plane + (row + r) * out.pitch + (self.origin.y + column)
            prefetch(self.buffers["y"], line, 1, write=True)

    def multiply_add(self, sums: list[Register], at: Any, weight: Any) -> None:
        """Add one input channel: every input row is loaded once a tap column and meets all output
        rows that it belongs to.

        Column by column, so that neighbouring multiply-adds belong to different sums: row by row, a
        sum would wait for itself, and a core does not look far enough ahead to fill the time.
        """
        (kh, kw), k = self.kernel.kernel, self.kernel
        w = [
            Register(self.lanes, splat(self.buffers["w"][weight + t], self.lanes))
            for t in range(kh * kw)
        ]
        users = k.input_rows(self.rows)
        for kx in range(kw):
            for row in users:
                x = Register(
                    self.lanes, self.column(at + row * k.source.frame.pitch, kx * k.dilation[1])
                )
                for r, ky in users[row]:
                    sums[r].set(sums[r].get() + x.get() * w[ky * kw + kx].get())

    def column(self, at: Any, offset: int) -> Any:
        """The pixels of one tap: `lanes` columns, a stride apart."""
        stride, lanes = self.kernel.stride[1], self.lanes
        if stride != 2:
            return fetch(self.buffers["x"], at + offset, lanes, stride)
        # Taps 2i and 2i + 1 are the even and the odd half of the same two vectors.
        even = at + (offset - offset % 2)
        parts = [load(self.buffers["x"], even, lanes), load(self.buffers["x"], even + lanes, lanes)]
        return shuffle(parts, list(range(offset % 2, 2 * lanes, 2)))

    def epilogue(self, sums: list[Register], plane: Any, row: Any, column: Any) -> None:
        """Residual, activation, store."""
        frame = self.kernel.out.frame
        for r, total in enumerate(sums):
            at = plane * frame.plane + (row + r) * frame.pitch + (self.origin.y + column)
            total.set(self.kernel.epilogue.finish(total.get(), self.buffers, at, self.lanes))
            put_first(self.buffers["y"], at, total, min(self.lanes, frame.width))
