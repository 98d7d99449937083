"""The loops of a convolution of codes whose lanes are pixels."""

from collections.abc import Callable
from functools import partial
from typing import Any

from tvm import tirx
from tvm.tirx.script import builder as T

from subpc.schedules.dot import QUAD
from subpc.schedules.isa import VectorIsa
from subpc.schedules.kernel import thread_buffers
from subpc.schedules.layout import LINE_BYTES, round_up
from subpc.schedules.operand import Operand
from subpc.schedules.quad_layer import QuadLayer
from subpc.schedules.quad_pack import interleaved
from subpc.schedules.quad_sums import TileSums
from subpc.schedules.quantization import CODES
from subpc.schedules.requantize import PACKED, packed, store_codes
from subpc.schedules.vector import Register, load, splat, store


class QuadBody:
    """Emits the loops of one kernel; `b` are its operands by name."""

    def __init__(self, kernel: QuadLayer, isa: VectorIsa, b: dict[str, Any]) -> None:
        self.kernel, self.isa, self.buffers, self.lanes = kernel, isa, b, isa.lanes
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
        k = self.kernel
        with T.parallel(0, k.out.batch * self.chunks * self.bands) as task:
            image = task // (self.chunks * self.bands)
            rest = task % (self.chunks * self.bands)
            chunk, band = rest // self.bands, rest % self.bands
            quads = k.quads if k.uniform else self.kernel.source.channels // QUAD + 1
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
        k, blocks = self.kernel, self.kernel.tile.blocks
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
        k, tile = self.kernel, self.kernel.tile
        first, count = self.quads_of(group)
        if k.sparse:
            self.pack(quads, image, band, first, count)
        for row in range(0, k.group, tile.rows):
            rows = min(tile.rows, k.group - row)
            here = band * tile.band
            left = self.tiles - here
            ragged = self.tiles % tile.band
            with T.serial(0, tirx.min(tile.band, left) if ragged else tile.band) as t:
                place = quads, image, group, (first, count), (row, rows), (here, t)
                self.pixel_tile(here + t, partial(self.register_tile, *place))

    def quads_of(self, group: Any) -> tuple[Any, Any]:
        """Where a group's quads begin, and how many there are."""
        if self.kernel.uniform:
            return group * self.kernel.quads, self.kernel.quads
        starts = self.buffers["starts"]
        return starts[group], starts[group + 1] - starts[group]

    def pixel_tile(self, tile: Any, body: Callable[[int], None]) -> None:
        """body(vectors) for pixel tile number `tile`: fewer of them at the end of the plane where
        the schedule says so."""
        full, last = (
            self.kernel.tile.vectors,
            self.vectors - (self.tiles - 1) * self.kernel.tile.vectors,
        )
        if not self.kernel.tile.tail or last == full:
            body(full)
            return
        with T.If(tile < self.tiles - 1):
            with T.Then():
                body(full)
            with T.Else():
                body(last)

    def pack(self, quads: Any, image: Any, band: Any, first: Any, count: Any) -> None:
        """The pixels that a band reads of `count` quads from `first` on, four channels next to each
        other."""
        k, width = self.kernel, 4 * self.lanes
        frame = k.source.frame
        begin = image * k.source.image + frame.first + self.low + band * (k.tile.band * self.span)
        steps = self.room // width
        with T.serial(0, count) as quad:
            for phase in range(k.phases):
                places = [
                    begin + self.buffers["index"][(first + quad) * QUAD + c] + phase * frame.plane
                    for c in range(QUAD)
                ]
                target = (quad * k.phases + phase) * self.room
                with T.serial(0, steps) as step:
                    rows = [load(self.buffers["x"], at + step * width, width) for at in places]
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
        k, lanes, (row, count) = self.kernel, self.lanes, rows
        channel = group * k.group + row
        sums = [
            [
                Register(lanes, splat(self.buffers["start"][channel + r], lanes), "int32")
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
            w=self.buffers["w"],
            weights=lambda quad, tap, r: weight + (quad * taps + tap) * count + r,
            narrow=k.narrow,
            streamed=not k.sparse,
        ).emit()
        q = (place[0] + place[1]) * self.span
        for r in range(count):
            self.finish(sums[r], image, channel + r, q)

    def finish(self, sums: list[Register], image: Any, channel: Any, q: Any) -> None:
        """Store one filter's pixels from flat pixel q on."""
        k, out = self.kernel, self.kernel.out
        if k.groups * k.group == out.channels:
            self.store(sums, image, channel, q)
            return
        with T.If(channel < out.channels), T.Then():
            self.store(sums, image, channel, q)

    def store(self, sums: list[Register], image: Any, channel: Any, q: Any) -> None:
        k, out, lanes, b = self.kernel, self.kernel.out, self.lanes, self.buffers
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
            whole = part + part[:1] * (PACKED - len(part))
            codes = packed(whole, k.epilogue.zero(b), lanes)
            if k.masked:
                codes = codes & load(b["mask"], place + start * lanes, PACKED * lanes)
            store_codes(b["y"], at + start * lanes, codes, len(part) * lanes, PACKED * lanes)
