"""Convolution of codes on framed planes, 1xN block-sparse or dense: uint8 activations by int8
weights, int32 sums.

Lanes are neighbouring pixels, as in flat_conv.py; every tap is a constant offset. The hardware adds
four products of neighbouring bytes to a 32-bit lane, so four input channels lie next to each other
for each pixel. In memory activations are planes: a task first packs, for its band of pixels, the
planes of the channels that its groups keep into such quads, in memory of its own that stays in L1
or L2. Then all filters and taps of these groups read them: packing costs an instruction for about
every N x taps / 3 that multiply. A dense layer packs once for all its filters.

Weights: for each group, register block, quad, and tap the `rows` filters' four codes, next to each
other as the loops read them.
"""

from dataclasses import dataclass, replace
from typing import Any

from tvm import tirx
from tvm.tirx.script import builder as T

from subpc.schedules.block_conv import BlockConv
from subpc.schedules.dot import QUAD
from subpc.schedules.isa import VectorIsa
from subpc.schedules.kernel import thread_buffers
from subpc.schedules.layout import LINE_BYTES, TensorLayout, round_up
from subpc.schedules.operand import Operand, integers, tensor
from subpc.schedules.quad_filters import (
    finished_planes,
    pixel_tiles,
    sums_by_filter,
    transposed_sums,
)
from subpc.schedules.quad_sums import TileSums
from subpc.schedules.quad_tile import QuadTile
from subpc.schedules.quantization import CODES
from subpc.schedules.requantize import (
    PACKED,
    Requantize,
    operands_of,
    packed,
    store_codes,
)
from subpc.schedules.vector import Register, load, shuffle, splat, store


@dataclass(frozen=True, kw_only=True)
class QuadConv(BlockConv):
    """y[n, o, q] = epilogue(sum_{k, tap} w[o, k, tap] * x[n, channel(o, k), q + offset(tap)]).

    source: planes of codes; one input channel is `phases` consecutive planes of it. out: codes or
    float32; its pitch equals the pitch of the source. taps: offset of each tap in pixels from pixel
    q of the channel's first plane. quads: of kept channels a group, or of all groups together where
    they are not uniform; the last one of a group may name channels whose weights are 0. residual:
    how it lies, with the pitch of the result. narrow: without vpdpbusd, the steps (taps of a quad)
    whose sums fit 16 bits whatever the pixels, as fitting_steps() says; 0: not even one, weights
    are words. None: there is vpdpbusd.

    Operands: x, w (int32: four codes each; as words, codes 0 and 2 and then 1 and 3), index (where
    the planes of each quad's four channels begin, in bytes), [starts] (in quads), start (int32,
    filters: minus zero point times the sum of the weights), multiplier, bias, levels, [residual],
    [mask], y.
    """

    SCHEDULES = "quads"

    phases: int
    taps: tuple[int, ...]
    quads: int
    residual: TensorLayout | None = None
    epilogue: Requantize
    tile: QuadTile
    narrow: int | None = None

    @property
    def family(self) -> str:
        return "bsr_conv_i8" if self.sparse else "dense_conv_i8"

    @property
    def masked(self) -> bool:
        """Whether border columns lie between the rows and have to keep their value."""
        return self.out.frame.halo > 0

    @property
    def flops(self) -> int:
        return self.flops_of(len(self.taps))

    @property
    def all_quads(self) -> int:
        """Quads, summed over the groups."""
        return self.groups * self.quads if self.uniform else self.quads

    def sizes(self) -> dict[str, Operand]:
        filters = self.groups * self.group
        sizes = {"x": tensor(self.source)}
        words = 2 if self.narrow == 0 else 1
        sizes["w"] = integers(self.all_quads * len(self.taps) * self.group * words)
        sizes["index"] = integers((self.all_quads if self.sparse else self.quads) * QUAD)
        if not self.uniform:
            sizes["starts"] = integers(self.groups + 1)
        sizes |= {"start": integers(filters)} | operands_of(filters)
        if self.epilogue.operand == "residual":
            assert self.residual is not None
            sizes["residual"] = tensor(self.residual)
        if self.masked:
            sizes["mask"] = Operand(self.out.frame.plane, self.out.dtype)
        return sizes | {"y": tensor(self.out)}

    def emit(self, b: dict[str, Any], isa: VectorIsa) -> None:
        (FilterLanes if self.tile.filter_lanes else QuadBody)(self, isa, b).tasks()


class QuadBody:
    """Emits the loops of one kernel; `b` are its operands by name."""

    def __init__(self, kernel: QuadConv, isa: VectorIsa, b: dict[str, Any]) -> None:
        self.k, self.isa, self.b, self.lanes = kernel, isa, b, isa.lanes
        tile, out = kernel.tile, kernel.out.frame
        self.span = tile.vectors * self.lanes
        self.vectors = -(-out.pixels // self.lanes)
        self.tiles = -(-self.vectors // tile.vectors)
        self.bands = -(-self.tiles // tile.band)
        self.chunks = -(-kernel.groups // tile.blocks)
        # Taps by the phase plane that they read; pixels of a plane that a band needs.
        plane = kernel.source.frame.plane
        offsets = [self.split_offset(tap, plane) for tap in kernel.taps]
        self.low = min(offset for _, offset in offsets)
        reach = max(offset for _, offset in offsets) - self.low
        self.room = round_up(tile.band * self.span + reach, LINE_BYTES)
        self.offsets = [(phase * self.room) + offset - self.low for phase, offset in offsets]

    def split_offset(self, tap: int, plane: int) -> tuple[int, int]:
        """(phase plane, offset from the pixel in it): offsets are far smaller than a plane."""
        phase = (tap + plane // 2) // plane
        return phase, tap - phase * plane

    def tasks(self) -> None:
        """One parallel loop over (image, groups, band of pixels)."""
        k = self.k
        with T.parallel(0, k.out.batch * self.chunks * self.bands) as task:
            image = task // (self.chunks * self.bands)
            rest = task % (self.chunks * self.bands)
            chunk, band = rest // self.bands, rest % self.bands
            quads = k.quads if k.uniform else self.k.source.channels // QUAD + 1
            memory = self.memory(quads * k.phases * self.room)
            with thread_buffers([memory]) as (quad_buffer,):
                self.task(quad_buffer, image, chunk, band)

    def memory(self, words: int) -> Operand:
        """What a task packs into."""
        return Operand(words * QUAD, CODES)

    def put(self, quads: Any, at: Any, piece: Any) -> None:
        """Store packed bytes."""
        store(quads, at, piece, 4 * self.lanes)

    def task(self, quads: Any, image: Any, chunk: Any, band: Any) -> None:
        """All groups of a chunk for one band."""
        k, blocks = self.k, self.k.tile.blocks
        if not k.sparse:
            self.pack(quads, image, band, 0, k.quads)
        with T.serial(0, blocks) as i:
            if k.groups % blocks:
                with T.If(chunk * blocks + i < k.groups), T.Then():
                    self.group(quads, image, chunk * blocks + i, band)
            else:
                self.group(quads, image, chunk * blocks + i, band)

    def group(self, quads: Any, image: Any, group: Any, band: Any) -> None:
        """All filters of a group for the pixel tiles of a band."""
        k, tile = self.k, self.k.tile
        first, count = self.quads_of(group)
        if k.sparse:
            self.pack(quads, image, band, first, count)
        for row in range(0, k.group, tile.rows):
            rows = min(tile.rows, k.group - row)
            here = band * tile.band
            left = self.tiles - here
            ragged = self.tiles % tile.band
            with T.serial(0, tirx.min(tile.band, left) if ragged else tile.band) as t:
                self.pixel_tile(quads, image, group, (first, count), (row, rows), (here, t))

    def quads_of(self, group: Any) -> tuple[Any, Any]:
        """Where a group's quads begin, and how many there are."""
        if self.k.uniform:
            return group * self.k.quads, self.k.quads
        starts = self.b["starts"]
        return starts[group], starts[group + 1] - starts[group]

    def pixel_tile(
        self,
        quads: Any,
        image: Any,
        group: Any,
        span: tuple[Any, Any],
        rows: tuple[int, int],
        place: tuple[Any, Any],
    ) -> None:
        """One register tile, narrower at the end of the plane where the tile says so."""
        tile, last = self.k.tile, self.vectors - (self.tiles - 1) * self.k.tile.vectors
        if not tile.tail or last == tile.vectors:
            self.register_tile(quads, image, group, span, rows, place, tile.vectors)
            return
        with T.If(place[0] + place[1] < self.tiles - 1):
            with T.Then():
                self.register_tile(quads, image, group, span, rows, place, tile.vectors)
            with T.Else():
                self.register_tile(quads, image, group, span, rows, place, last)

    def pack(self, quads: Any, image: Any, band: Any, first: Any, count: Any) -> None:
        """The pixels that a band reads of `count` quads from `first` on, four channels next to each
        other."""
        k, width = self.k, 4 * self.lanes
        frame = k.source.frame
        begin = image * k.source.image + frame.first + self.low + band * (k.tile.band * self.span)
        steps = self.room // width
        with T.serial(0, count) as quad:
            for phase in range(k.phases):
                places = [
                    begin + self.b["index"][(first + quad) * QUAD + c] + phase * frame.plane
                    for c in range(QUAD)
                ]
                target = (quad * k.phases + phase) * self.room
                with T.serial(0, steps) as step:
                    rows = [load(self.b["x"], at + step * width, width) for at in places]
                    for part, piece in enumerate(interleaved(rows, width)):
                        at = (target + step * width + part * self.lanes) * QUAD
                        self.put(quads, at, piece)

    def register_tile(
        self,
        quads: Any,
        image: Any,
        group: Any,
        span: tuple[Any, Any],
        rows: tuple[int, int],
        place: tuple[Any, Any],
        vectors: int,
    ) -> None:
        """Sums of `rows` filters by `vectors` vectors of pixels, and their epilogue."""
        k, lanes, (row, count) = self.k, self.lanes, rows
        channel = group * k.group + row
        sums = [
            [
                Register(lanes, splat(self.b["start"][channel + r], lanes), "int32")
                for _ in range(vectors)
            ]
            for r in range(count)
        ]
        taps, size = len(k.taps), QUAD * lanes
        weight = span[0] * (taps * k.group) + span[1] * (taps * row)

        def pixels(quad: Any, tap: int, vector: int) -> Any:
            base = quad * (k.phases * self.room) + place[1] * self.span
            return load(quads, (base + self.offsets[tap] + vector * lanes) * QUAD, size)

        TileSums(
            isa=self.isa,
            sums=sums,
            quads=span[1],
            taps=taps,
            pixels=pixels,
            w=self.b["w"],
            weights=lambda quad, tap, r: weight + (quad * taps + tap) * count + r,
            narrow=k.narrow,
            streamed=not k.sparse,
        ).emit()
        q = (place[0] + place[1]) * self.span
        for r in range(count):
            self.finish(sums[r], image, channel + r, q)

    def finish(self, sums: list[Register], image: Any, channel: Any, q: Any) -> None:
        """Store one filter's pixels from flat pixel q on."""
        k, out = self.k, self.k.out
        if k.groups * k.group == out.channels:
            self.store(sums, image, channel, q)
            return
        with T.If(channel < out.channels), T.Then():
            self.store(sums, image, channel, q)

    def store(self, sums: list[Register], image: Any, channel: Any, q: Any) -> None:
        k, out, lanes, b = self.k, self.k.out, self.lanes, self.b
        at, kept = (
            image * layout.image + channel * layout.frame.plane + layout.frame.first + q
            for layout in (out, k.residual or out)
        )
        values = [
            k.epilogue.value(total.get(), b, channel, kept + v * lanes, lanes)
            for v, total in enumerate(sums)
        ]
        place = out.frame.first + q
        if not k.epilogue.codes:
            for v, value in enumerate(values):
                if k.masked:
                    value = value * load(b["mask"], place + v * lanes, lanes)
                store(b["y"], at + v * lanes, value, lanes)
            return
        for start in range(0, len(values), PACKED):
            part = values[start : start + PACKED]
            codes = packed(part + part[:1] * (PACKED - len(part)), lanes)
            if k.masked:
                codes = codes & load(b["mask"], place + start * lanes, PACKED * lanes)
            store_codes(b["y"], at + start * lanes, codes, len(part) * lanes, PACKED * lanes)


class FilterLanes(QuadBody):
    """The same with filters in the lanes; a task computes whole planes."""

    def __init__(self, kernel: QuadConv, isa: VectorIsa, b: dict[str, Any]) -> None:
        plane = -(-kernel.out.frame.pixels // (kernel.tile.vectors * isa.lanes))
        super().__init__(replace(kernel, tile=replace(kernel.tile, band=plane)), isa, b)

    def memory(self, words: int) -> Operand:
        return integers(words)

    def put(self, quads: Any, at: Any, piece: Any) -> None:
        words = tirx.reinterpret(f"int32x{self.lanes}", piece)
        store(quads, at // QUAD, words, self.lanes)

    def group(self, quads: Any, image: Any, group: Any, band: Any) -> None:
        k, frame = self.k, self.k.out.frame
        span = self.quads_of(group)
        if k.sparse:
            self.pack(quads, image, band, *span)
        places = [
            min(q // frame.pitch, frame.height - 1) * frame.width
            + min(q % frame.pitch, frame.width - 1)
            for q in range(round_up(frame.pixels, self.lanes))
        ]
        channel = group * k.group
        memory = (frame.height * frame.width * k.group, len(places) * k.group)
        with thread_buffers([integers(size) for size in memory]) as (sums, planes):
            sums_by_filter(
                isa=self.isa,
                b=self.b,
                quads=quads,
                sums=sums,
                channel=channel,
                group=k.group,
                span=span,
                offsets=self.offsets,
                room=k.phases * self.room,
                tiles=pixel_tiles(frame.height, frame.width, frame.pitch, k.tile.rows),
                vectors=k.tile.vectors,
                columns=frame.width,
                streamed=not k.sparse,
            )
            transposed_sums(self.isa, sums, planes, k.group, places)
            finished_planes(
                self.isa,
                planes,
                k.group,
                len(places),
                lambda registers, r, q: self.finish(registers, image, channel + r, q),
            )


def interleaved(rows: list[Any], width: int) -> list[Any]:
    """Four vectors of bytes as four vectors in which every byte of the first is followed by those
    of the others at its place.

    vpunpck works in quarters of 128 bits: the dwords of a vector are dealt out over the quarters
    before, so that what comes out is in order.
    """
    quarters = width // 16
    deal = [dword * quarters + quarter for quarter in range(quarters) for dword in range(4)]
    dealt = [
        Register(width, _bytes(shuffle([_words(row, width)], deal), width), CODES) for row in rows
    ]
    pairs = [
        [_unpacked(dealt[i], dealt[i + 1], width, 1, half) for i in (0, 2)] for half in range(2)
    ]
    return [_unpacked(low, high, width, 2, half).get() for low, high in pairs for half in range(2)]


def _words(value: Any, width: int) -> Any:
    return tirx.reinterpret(f"int32x{width // 4}", value)


def _bytes(value: Any, width: int) -> Any:
    return tirx.reinterpret(f"{CODES}x{width}", value)


def _unpacked(first: Register, second: Register, width: int, size: int, half: int) -> Register:
    """Elements of `size` bytes of the lower or upper half of each 128 bits, by turns."""
    picks = [
        vector * width + quarter * 16 + half * 8 + element * size + byte
        for quarter in range(width // 16)
        for element in range(8 // size)
        for vector in range(2)
        for byte in range(size)
    ]
    return Register(width, shuffle([first.get(), second.get()], picks), CODES)
