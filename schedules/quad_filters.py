"""The loops of a convolution of codes on a small plane: lanes are filters instead of pixels.

Sixteen pixels of a row of seven are nine that nobody wants. Here a register holds the sums of one
pixel for as many filters as it has lanes: a pixel's quad is broadcast, and the filters' codes for
it are loaded as they lie. No pixel between two rows is computed. The sums are transposed in memory
of the task, and finished as those of quad_conv.py are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tvm import tirx
from tvm.tirx.script import builder as T

from subpc.schedules.block_conv import PREFETCH_WEIGHTS
from subpc.schedules.dot import QUAD, dot
from subpc.schedules.isa import VectorIsa
from subpc.schedules.kernel import thread_buffers
from subpc.schedules.layout import round_up
from subpc.schedules.operand import Operand, integers
from subpc.schedules.quad_body import QuadBody
from subpc.schedules.quad_layer import QuadLayer
from subpc.schedules.quantization import CODES
from subpc.schedules.vector import Register, load, prefetch, splat, store, transpose


@dataclass(frozen=True, kw_only=True)
class PixelTile:
    """Neighbouring pixels in the order of the plane without its border. places: of each, from the
    tile's first one, on the framed plane; count: tiles like it, `step` places and so many pixels
    apart, from `start` on."""

    places: tuple[int, ...]
    count: int
    step: int
    start: int
    first: int


def pixel_tiles(height: int, width: int, pitch: int, size: int) -> list[PixelTile]:
    """Tiles of `size` pixels, whole rows or equal parts of one, and a smaller one for the last
    rows."""
    if size < width:
        parts = width // size
        return [
            PixelTile(
                places=tuple(range(size)),
                count=height,
                step=pitch,
                start=part * size,
                first=part * size,
            )
            for part in range(parts)
        ]
    rows = size // width
    places = tuple(y * pitch + x for y in range(rows) for x in range(width))
    tiles = [PixelTile(places=places, count=height // rows, step=rows * pitch, start=0, first=0)]
    rest, done = height % rows, height - height % rows
    if rest:
        last = places[: rest * width]
        tiles.append(
            PixelTile(places=last, count=1, step=0, start=done * pitch, first=done * width)
        )
    return tiles


def transposed_sums(
    isa: VectorIsa, sums: Any, planes: Any, group: int, pixel_at: Sequence[int]
) -> None:
    """From sums (pixels, group) to planes (group, places). pixel_at: the pixel of each place of the
    framed plane; any one for places between rows."""
    lanes, places = isa.lanes, len(pixel_at)
    floats = f"float32x{lanes}"
    with T.serial(0, group // lanes) as vector:
        for first in range(0, places, lanes):
            rows = [
                Register(
                    lanes,
                    tirx.reinterpret(floats, load(sums, pixel * group + vector * lanes, lanes)),
                )
                for pixel in pixel_at[first : first + lanes]
            ]
            for r, row in enumerate(transpose(rows, lanes)):
                at = (vector * lanes + r) * places + first
                store(planes, at, tirx.reinterpret(f"int32x{lanes}", row.get()), lanes)


def finished_planes(isa: VectorIsa, planes: Any, group: int, places: int, finish: Any) -> None:
    """finish(registers, filter of the group, first place) for up to four vectors at a time."""
    lanes = isa.lanes
    with T.serial(0, group) as r:
        for first in range(0, places, 4 * lanes):
            registers = [
                Register(lanes, load(planes, r * places + at, lanes), "int32")
                for at in range(first, min(first + 4 * lanes, places), lanes)
            ]
            finish(registers, r, first)


class FilterLanes(QuadBody):
    """The same with filters in the lanes; a task computes whole planes."""

    def __init__(self, kernel: QuadLayer, isa: VectorIsa, b: dict[str, Any]) -> None:
        plane = -(-kernel.out.frame.pixels // (kernel.tile.vectors * isa.lanes))
        super().__init__(replace(kernel, tile=replace(kernel.tile, band=plane)), isa, b)

    def memory(self, words: int) -> Operand:
        return integers(words)

    def put(self, quads: Any, at: Any, piece: Any) -> None:
        words = tirx.reinterpret(f"int32x{self.lanes}", piece)
        store(quads, at // QUAD, words, self.lanes)

    def group(self, quads: Any, image: Any, group: Any, band: Any) -> None:
        k, frame = self.kernel, self.kernel.out.frame
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
        tiles = pixel_tiles(frame.height, frame.width, frame.pitch, k.tile.rows)
        vectors = k.tile.vectors * self.lanes
        with thread_buffers([integers(size) for size in memory]) as (sums, planes):
            for block in range(0, k.group, vectors):
                filters = range(block, min(block + vectors, k.group), self.lanes)
                for tile in tiles:
                    self.sums_of(quads, sums, channel, span, filters, tile)
            transposed_sums(self.isa, sums, planes, k.group, places)
            finished_planes(
                self.isa,
                planes,
                k.group,
                len(places),
                lambda registers, r, q: self.finish(registers, image, channel + r, q),
            )

    def sums_of(
        self,
        quads: Any,
        sums: Any,
        channel: Any,
        span: tuple[Any, Any],
        filters: range,
        tile: PixelTile,
    ) -> None:
        """Leave in sums (pixels, group) what some vectors of a group's filters add up to on tiles
        of pixels.

        channel: the group's first filter; span: where its quads begin, and how many there are;
        filters: of the group, the first of each vector.
        """
        lanes, columns = self.lanes, self.kernel.out.frame.width
        apart = columns if len(tile.places) < columns else len(tile.places)
        with T.serial(0, tile.count) as number:
            place, pixel = tile.start + number * tile.step, tile.first + number * apart
            totals = [
                [
                    Register(lanes, load(self.buffers["start"], channel + at, lanes), "int32")
                    for at in filters
                ]
                for _ in tile.places
            ]
            with T.serial(0, span[1]) as quad:
                for tap in range(len(self.offsets)):
                    self.add_tap(quads, totals, (span[0] + quad, quad), tap, filters, tile, place)
            for p, row in enumerate(totals):
                for at, total in zip(filters, row, strict=True):
                    store(sums, (pixel + p) * self.kernel.group + at, total.get(), lanes)

    def add_tap(
        self,
        quads: Any,
        totals: list[list[Register]],
        quad: tuple[Any, Any],
        tap: int,
        filters: range,
        tile: PixelTile,
        place: Any,
    ) -> None:
        """One tap of a quad: each pixel by all filters. quad: its number in the layer, and in the
        group."""
        k, lanes = self.kernel, self.lanes
        weight = (quad[0] * len(self.offsets) + tap) * k.group
        if not k.sparse:  # as in TileSums
            ahead = weight + filters.start + PREFETCH_WEIGHTS
            prefetch(self.buffers["w"], ahead, len(filters) * lanes, write=False)
        codes = [
            Register(lanes, load(self.buffers["w"], weight + at, lanes), "int32") for at in filters
        ]
        for p, row in zip(tile.places, totals, strict=True):
            at = quad[1] * (k.phases * self.room) + place + self.offsets[tap] + p
            bytes_ = tirx.reinterpret(f"{CODES}x{QUAD * lanes}", splat(quads[at], lanes))
            pixels = Register(QUAD * lanes, bytes_, CODES)
            for total, code in zip(row, codes, strict=True):
                total.set(dot(total.get(), pixels.get(), code.get(), lanes))
