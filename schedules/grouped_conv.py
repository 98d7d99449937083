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
class GroupedConv(Stage):
    """y[n, o] = epilogue(bias[o] + sum over channels c of o's group and taps t of w[o, c, t] * x[n,
    c, t]).

    groups == source.channels is a depthwise convolution. padding: rows above, columns left; below
    and right follow from the size of `out`. The frame of the source has a halo of at least the
    padding on every side. Operands: x, w (c_out, c_in / groups, kh, kw: as PyTorch has it), bias
    (c_out), [residual, laid out as y], y.
    """

    SCHEDULES = "grouped"

    groups: int
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    tile: GroupedTile = DEFAULT_TILE

    def __post_init__(self) -> None:
        if self.source.channels % self.groups or self.out.channels % self.groups:
            raise ValueError(
                f"{self.groups} groups do not divide {self.source.channels} and {self.out.channels}"
                " channels"
            )
        if self.epilogue.in_place:
            raise ValueError(
                "vectors overlap in a row: a residual that the result overwrites would be added"
                " twice"
            )
        if self.source.frame.compact or self.out.frame.compact:
            raise ValueError("grouped convolution works on framed planes")
        if self.halo_needed() > self.source.frame.halo:
            raise ValueError(
                f"the taps reach {self.halo_needed()} pixels outside the image, its halo is"
                f" {self.source.frame.halo}"
            )

    @property
    def family(self) -> str:
        return "depthwise_conv_f32" if self.groups == self.source.channels else "grouped_conv_f32"

    @property
    def per_group(self) -> int:
        """Input channels a group."""
        return self.source.channels // self.groups

    @property
    def flops(self) -> int:
        frame, taps = self.out.frame, self.kernel[0] * self.kernel[1]
        filters = self.out.batch * self.out.channels
        return 2 * filters * frame.height * frame.width * self.per_group * taps

    def halo_needed(self) -> int:
        """How far the taps reach outside the image, on any side."""
        sizes = (
            (self.source.frame.height, self.out.frame.height),
            (self.source.frame.width, self.out.frame.width),
        )
        needs = [0, *self.padding]
        for axis, (size, count) in enumerate(sizes):
            last = (
                (count - 1) * self.stride[axis]
                - self.padding[axis]
                + (self.kernel[axis] - 1) * self.dilation[axis]
            )
            needs.append(last - (size - 1))
        return max(needs)

    def sizes(self) -> dict[str, Operand]:
        weights = floats(self.out.channels * self.per_group * self.kernel[0] * self.kernel[1])
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
        self.k, self.b, self.isa = conv, b, isa
        self.lanes = isa.lanes // 2 if conv.tile.narrow else isa.lanes
        height = conv.out.frame.height
        self.rows = min(conv.tile.rows or default_rows(height, isa), height)

    def tasks(self) -> None:
        """One loop over (image, output channel, block of rows)."""
        k, height = self.k, self.k.out.frame.height
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
        with T.serial(0, self.k.out.channels) as plane:
            self.plane(plane)

    def plane(self, plane: Any) -> None:
        """All rows of one output plane; the last tile may overlap the one before it."""
        height = self.k.out.frame.height
        with T.serial(0, -(-height // self.rows)) as tile:
            row = tile * self.rows
            self.row_tile(plane, tirx.min(row, height - self.rows) if height % self.rows else row)

    def row_tile(self, plane: Any, row: Any) -> None:
        """All columns of `rows` output rows; the last vector of a row overlaps its neighbour."""
        width = self.k.out.frame.width
        vectors = -(-width // self.lanes)
        if vectors == 1:
            self.tile(plane, row, 0)
        else:
            with T.serial(0, vectors) as i:
                column, last = i * self.lanes, width - self.lanes
                self.tile(plane, row, tirx.min(column, last) if width % self.lanes else column)

    def tile(self, plane: Any, row: Any, column: Any) -> None:
        k, source = self.k, self.k.source.frame
        channel = plane % k.out.channels if k.out.batch > 1 else plane
        bias = splat(self.b["bias"][channel], self.lanes)
        sums = [Register(self.lanes, bias) for _ in range(self.rows)]
        at = (row * k.stride[0] - k.padding[0]) * source.pitch + (
            column * k.stride[1] - k.padding[1] + self.origin.x
        )
        taps, first = k.kernel[0] * k.kernel[1], self.input_plane(plane, channel)
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
        k, source, out = self.k, self.k.source.frame, self.k.out.frame
        whole = out.height == self.rows or k.tile.rows_outer
        later = at + k.tile.prefetch * (
            source.plane * k.per_group if whole else self.rows * k.stride[0] * source.pitch
        )
        width = (self.lanes - 1) * k.stride[1] + 1
        for r in range((self.rows - 1) * k.stride[0] + (k.kernel[0] - 1) * k.dilation[0] + 1):
            prefetch(self.b["x"], later + r * source.pitch, width, write=False)
        for r in range(self.rows):
            line = plane * out.plane + (row + r) * out.pitch + (self.origin.y + column)
            prefetch(self.b["y"], line, 1, write=True)

    def input_plane(self, plane: Any, channel: Any) -> Any:
        """The first input plane of the output channel's group."""
        k = self.k
        if k.source.channels == k.out.channels == k.groups:
            return plane
        first = channel // (k.out.channels // k.groups) * k.per_group
        return plane // k.out.channels * k.source.channels + first if k.out.batch > 1 else first

    def multiply_add(self, sums: list[Register], at: Any, weight: Any) -> None:
        """Add one input channel: every input row is loaded once a tap column and meets all output
        rows that it belongs to.

        Column by column, so that neighbouring multiply-adds belong to different sums: row by row, a
        sum would wait for itself, and a core does not look far enough ahead to fill the time.
        """
        (kh, kw), k = self.k.kernel, self.k
        w = [
            Register(self.lanes, splat(self.b["w"][weight + t], self.lanes)) for t in range(kh * kw)
        ]
        users: dict[int, list[tuple[int, int]]] = {}
        for r in range(self.rows):
            for ky in range(kh):
                users.setdefault(r * k.stride[0] + ky * k.dilation[0], []).append((r, ky))
        for kx in range(kw):
            for row in sorted(users):
                x = Register(
                    self.lanes, self.column(at + row * k.source.frame.pitch, kx * k.dilation[1])
                )
                for r, ky in users[row]:
                    sums[r].set(sums[r].get() + x.get() * w[ky * kw + kx].get())

    def column(self, at: Any, offset: int) -> Any:
        """The pixels of one tap: `lanes` columns, a stride apart."""
        stride, lanes = self.k.stride[1], self.lanes
        if stride != 2:
            return fetch(self.b["x"], at + offset, lanes, stride)
        # Taps 2i and 2i + 1 are the even and the odd half of the same two vectors.
        even = at + (offset - offset % 2)
        parts = [load(self.b["x"], even, lanes), load(self.b["x"], even + lanes, lanes)]
        return shuffle(parts, list(range(offset % 2, 2 * lanes, 2)))

    def epilogue(self, sums: list[Register], plane: Any, row: Any, column: Any) -> None:
        """Residual, activation, store."""
        frame = self.k.out.frame
        for r, total in enumerate(sums):
            at = plane * frame.plane + (row + r) * frame.pitch + (self.origin.y + column)
            total.set(self.k.epilogue.finish(total.get(), self.b, at, self.lanes))
            put_first(self.b["y"], at, total, min(self.lanes, frame.width))
