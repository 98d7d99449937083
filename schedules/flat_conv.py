"""Convolution on framed channel planes, 1xN block-sparse or dense, fp32: the kernel family behind
almost every layer.

The lanes of a vector are neighbouring PIXELS of one channel. On a frame (layout.py) every filter
tap of a stride-1 convolution is one constant offset, so output pixels form one flat range q and no
vector ever asks where a row ends. A register tile is `rows` output channels x `vectors` vectors of
q: for every kept input channel and tap, `vectors` loads meet `rows` weights broadcast from memory.
Strided convolutions come here too, after `relayout.PhaseSplit` has sorted the input pixels by their
phase.

Sparse (kept < c_in): all taps of one input channel in N consecutive filters live or die together
(SUBP, section 3). Group g reads only the planes in `index[g]`; with the uniform rule every group
keeps the same number, so all tasks are equal.
"""

from dataclasses import dataclass, replace
from typing import Any

import tvm
from tvm.tirx.script import builder as T

from subpc.schedules.block_conv import PREFETCH_WEIGHTS, BlockConv
from subpc.schedules.flat_tile import FlatTile
from subpc.schedules.isa import VectorIsa
from subpc.schedules.layout import Origin, whole
from subpc.schedules.operand import Operand, floats
from subpc.schedules.stage import Stage
from subpc.schedules.vector import Register, load, prefetch, put_first, splat, store

# Filters with more taps than this loop over rows of taps instead of unrolling them all: the code of
# a tile has to stay in the 32 KB L1i.
MAX_UNROLLED_FMAS = 1200


@dataclass(frozen=True, kw_only=True)
class FlatConv(BlockConv, Stage):
    """y[n, o, q] = epilogue(bias[o] + sum_{k, tap} w[o, k, tap] * x[n, channel(o, k), q +
    offset(tap)]) * mask[q].

    source: the input planes; one input channel is `phases` consecutive planes of it.
    out: the output tensor; its pitch equals the pitch of the source.
    taps: offset of each filter tap in floats from pixel q of the channel's first plane.
    group, kept, uniform, sparse: as in BlockConv.

    bounds: () or "floor" or "floor", "ceiling": x is clamped as it is read, each channel to its own
    bounds, laid out like the index (without one: a float an input channel).

    Operands: x, w (packed by `pack_weights`), [index], [starts], [floor], [ceiling], bias (c_out),
    [residual], [mask: a plane with 1 for its pixels, else 0], y.
    """

    SCHEDULES = "flat"

    phases: int
    taps: tuple[int, ...]
    bounds: tuple[str, ...]
    tile: FlatTile

    @property
    def family(self) -> str:
        return "bsr_conv_f32" if self.sparse else "dense_conv_f32"

    @property
    def row_blocks(self) -> int:
        """Register tiles that cover the output channels."""
        return self.groups * self.group // self.tile.rows

    @property
    def masked(self) -> bool:
        """Whether border columns lie between the rows and have to stay zero."""
        return self.out.frame.halo > 0

    @property
    def flops(self) -> int:
        return self.flops_of(len(self.taps))

    def sizes(self) -> dict[str, Operand]:
        bounds = {name: floats(self.blocks if self.sparse else self.kept) for name in self.bounds}
        mask = {"mask": floats(self.out.frame.plane)} if self.masked else {}
        return self.operands_around(floats(self.blocks * len(self.taps) * self.group), bounds, mask)

    def emit(self, b: dict[str, Any], isa: VectorIsa) -> None:
        FlatBody(self, isa.lanes, b).tasks()

    def emit_band(self, b: dict[str, Any], isa: VectorIsa, origin: Origin) -> None:
        FlatBody(self, isa.lanes, b, origin).band()

    def follows(self, before: Stage, kept: bool) -> bool:
        return self.taps == (0,) and self.phases == 1

    @property
    def in_bands(self) -> bool:
        """Whether sums stay in registers, and no filters are added to fill a group."""
        return self.tile.split == 1 and self.groups * self.group == self.out.channels

    @property
    def zeros_rows(self) -> bool:
        """By its mask, in a task's memory. A filter of more taps would read beyond the halo for
        them."""
        return self.taps == (0,) and self.masked

    @property
    def zeros_between(self) -> bool:
        return True

    @property
    def detaches(self) -> bool:
        return True


class FlatBody:
    """Emits the loops of one kernel; `b` are its operands by name.

    ragged: lanes of the last vector of a tile that are stored, 0: all.
    """

    def __init__(
        self,
        kernel: FlatConv,
        lanes: int,
        b: dict[str, Any],
        origin: Origin | None = None,
        ragged: int = 0,
    ) -> None:
        self.kernel, self.lanes, self.buffers, self.ragged = kernel, lanes, b, ragged
        self.origin = origin or whole(kernel.source, kernel.out)
        self.span = kernel.tile.vectors * lanes
        self.tiles = -(-kernel.out.frame.pixels // self.span)
        self.chunks = -(-kernel.row_blocks // kernel.tile.blocks)

    def tasks(self) -> None:
        """One parallel loop over (image, pixel tile, block of row blocks); every output element
        belongs to one task."""
        k, tiles, chunks = self.kernel, self.tiles, self.chunks
        with T.parallel(0, k.out.batch * tiles * chunks) as task:
            image = task // (tiles * chunks)
            rest = task % (tiles * chunks)
            tile = rest // chunks if k.tile.pixels_outer else rest % tiles
            self.task(image, tile, rest % chunks if k.tile.pixels_outer else rest // tiles)

    def task(self, image: Any, tile: Any, chunk: Any) -> None:
        """A block of row blocks for pixel tile number `tile`."""
        last = (
            -(-self.kernel.out.frame.pixels // self.lanes)
            - (self.tiles - 1) * self.kernel.tile.vectors
        )
        if not self.kernel.tile.tail or last == self.kernel.tile.vectors:
            self.row_blocks(image, tile * self.span, chunk)
            return
        with T.If(tile < self.tiles - 1):
            with T.Then():
                self.row_blocks(image, tile * self.span, chunk)
            with T.Else():
                self.narrow(last).row_blocks(image, tile * self.span, chunk)

    def narrow(self, vectors: int, ragged: int = 0) -> "FlatBody":
        """The same kernel with tiles of fewer vectors."""
        kernel = replace(self.kernel, tile=replace(self.kernel.tile, vectors=vectors))
        return FlatBody(kernel, self.lanes, self.buffers, self.origin, ragged)

    def band(self) -> None:
        """The whole image, or the band that is left of it, in one task; nothing is stored behind
        its last pixel."""
        full, rest = divmod(self.kernel.out.frame.pixels, self.span)
        outer, inner = (full, self.chunks) if self.kernel.tile.pixels_outer else (self.chunks, full)
        with T.serial(0, outer) as i, T.serial(0, inner) as j:
            tile, chunk = (i, j) if self.kernel.tile.pixels_outer else (j, i)
            self.row_blocks(0, tile * self.span, chunk)
        if rest:
            with T.serial(0, self.chunks) as chunk:
                last = self.narrow(-(-rest // self.lanes), rest % self.lanes)
                last.row_blocks(0, full * self.span, chunk)

    def row_blocks(self, image: Any, q: Any, chunk: Any) -> None:
        """`blocks` row blocks, for one part of the input channels after the other."""
        blocks, row_blocks = self.kernel.tile.blocks, self.kernel.row_blocks
        for part in range(self.kernel.tile.split):
            with T.serial(0, blocks) as i:
                if row_blocks % blocks:
                    with T.If(chunk * blocks + i < row_blocks), T.Then():
                        self.register_tile(image, q, chunk * blocks + i, part)
                else:
                    self.register_tile(image, q, chunk * blocks + i, part)

    def register_tile(self, image: Any, q: Any, row_block: Any, portion: int) -> None:
        """Compute `rows` x `span` outputs that start at channel row_block * rows and flat pixel q,
        over one part of the input channels."""
        k, rows = self.kernel, self.kernel.tile.rows
        per_group = k.group // rows
        group, part = row_block // per_group, row_block % per_group
        # One array a row, of scope "global": those of up to 1 KB TVM leaves on the stack and LLVM
        # promotes to registers.
        acc = [T.alloc_buffer((self.span,), k.sum_type) for _ in range(rows)]
        for r in range(rows):
            at = self.out_index(image, q, row_block * rows + r)
            prefetch(self.buffers["y"], at, self.span, write=True)
            if k.epilogue.operand == "residual":
                prefetch(self.buffers["residual"], at, self.span, write=False)
        self.start(acc, image, q, row_block * rows, portion)
        first, count = k.kept_of(self.buffers, group)
        panel = first * per_group + part * count
        begin, end = count * portion // k.tile.split, count * (portion + 1) // k.tile.split
        floats = k.phases * k.source.frame.plane
        with T.serial(0, end - begin) as step:
            kept = begin + step if portion else step
            channel = k.channel_at(self.buffers, first, kept, floats)
            pixel = image * k.source.image + self.origin.x + q
            weight = (panel + kept) * (len(k.taps) * rows)
            if k.tile.prefetch:
                later = k.channel_at(self.buffers, first, kept + k.tile.prefetch, floats)
                prefetch(self.buffers["x"], pixel + later, self.span, write=False)
            prefetch(self.buffers["w"], weight + PREFETCH_WEIGHTS, len(k.taps) * rows, write=False)
            bounds = [
                splat(self.buffers[name][first + kept if k.sparse else kept], self.lanes)
                for name in k.bounds
            ]
            self.multiply_add(acc, pixel + channel, weight, bounds)
        if portion < k.tile.split - 1:
            self.put_aside(acc, image, q, row_block * rows)
        else:
            self.epilogue(acc, image, q, row_block * rows)

    def start(self, acc: list[Any], image: Any, q: Any, channel: Any, portion: int) -> None:
        """The first part begins with the bias (and the residual, if there are more parts), the
        others with the sums so far."""
        k = self.kernel
        for r in range(k.tile.rows):
            for v in range(k.tile.vectors):
                at = self.out_index(image, q, channel + r) + v * self.lanes
                if portion:
                    value = load(self.buffers["y"], at, self.lanes)
                else:
                    value = splat(self.buffers["bias"][channel + r], self.lanes)
                    if k.tile.split > 1:
                        value = k.epilogue.start(value, self.buffers, at, self.lanes)
                store(acc[r], v * self.lanes, value, self.lanes)

    def put_aside(self, acc: list[Any], image: Any, q: Any, channel: Any) -> None:
        """Leave the sums so far in the output."""
        for r in range(self.kernel.tile.rows):
            for v in range(self.kernel.tile.vectors):
                at = self.out_index(image, q, channel + r) + v * self.lanes
                store(self.buffers["y"], at, load(acc[r], v * self.lanes, self.lanes), self.lanes)

    def multiply_add(self, acc: list[Any], pixel: Any, weight: Any, bounds: list[Any]) -> None:
        """acc[r, :] += w[tap, r] * x[pixel + offset(tap) :] for all taps of one input channel."""
        rows = self.kernel.tile.rows
        for t, offset in enumerate(self.kernel.taps):
            for r in range(rows):
                w = splat(self.buffers["w"][weight + (t * rows + r)], self.lanes)
                for v in range(self.kernel.tile.vectors):
                    x = load(self.buffers["x"], pixel + (offset + v * self.lanes), self.lanes)
                    for bound, limit in zip(bounds, (tvm.tirx.max, tvm.tirx.min), strict=False):
                        x = limit(x, bound)
                    total = load(acc[r], v * self.lanes, self.lanes) + x * w
                    store(acc[r], v * self.lanes, total, self.lanes)

    def out_index(self, image: Any, q: Any, channel: Any) -> Any:
        """Where flat pixel q of an output channel lies; q is a multiple of the span, so that this
        is the start of a cache line."""
        out = self.kernel.out
        return image * out.image + channel * out.frame.plane + self.origin.y + q

    def epilogue(self, acc: list[Any], image: Any, q: Any, channel: Any) -> None:
        """Residual add, if the sums have not begun with it, activation, mask, store."""
        k = self.kernel
        epilogue = k.epilogue if k.tile.split == 1 else k.epilogue.without_residual()
        for r in range(k.tile.rows):
            for v in range(k.tile.vectors):
                at = self.out_index(image, q, channel + r) + v * self.lanes
                total = load(acc[r], v * self.lanes, self.lanes)
                value = epilogue.finish(total, self.buffers, at, self.lanes)
                if k.masked:
                    pixels = self.origin.mask + q + v * self.lanes
                    value = value * load(self.buffers["mask"], pixels, self.lanes)
                if self.ragged and v == k.tile.vectors - 1:
                    put_first(self.buffers["y"], at, Register(self.lanes, value), self.ragged)
                else:
                    store(self.buffers["y"], at, value, self.lanes)
