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
from subpc.schedules.dot import QUAD
from subpc.schedules.isa import VectorIsa
from subpc.schedules.kernel import thread_buffers
from subpc.schedules.layout import round_up
from subpc.schedules.operand import Operand, integers
from subpc.schedules.quad_body import QuadBody
from subpc.schedules.quad_layer import QuadLayer
from subpc.schedules.quad_sums import TileSums
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


@dataclass(frozen=True, kw_only=True)
class FilterSums(TileSums):
    """The same with rows that are pixels, and filters in the lanes.

    pixels: (quad, tap, place) -> a pixel's quad in every lane. weights: (quad, tap, vector) ->
    where in `w` the vector's codes are. places: of the tile's pixels.
    """

    places: tuple[int, ...]

    def _prefetch(self, quad: Any) -> None:
        size = len(self.sums[0]) * self.isa.lanes
        for tap in range(self.taps):
            ahead = self.weights(quad, tap, 0) + PREFETCH_WEIGHTS
            prefetch(self.w, ahead, size, write=False)

    def _row(self, quad: Any, tap: int) -> list[Register]:
        lanes = self.isa.lanes
        return [
            Register(lanes, load(self.w, self.weights(quad, tap, v), lanes), "int32")
            for v in range(len(self.sums[0]))
        ]

    def _of_row(self, quad: Any, tap: int, row: int) -> Any:
        return self.pixels(quad, tap, self.places[row])

    def _pixels_and_codes(self, lane: Any, of_row: Any) -> tuple[Any, Any]:
        return self._bytes(of_row), lane


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
            weight = span[0] * (len(self.offsets) * self.kernel.group)
            FilterSums(
                isa=self.isa,
                sums=totals,
                quads=span[1],
                taps=len(self.offsets),
                pixels=lambda quad, tap, p: splat(
                    quads[quad * (self.kernel.phases * self.room) + place + self.offsets[tap] + p],
                    lanes,
                ),
                w=self.buffers["w"],
                weights=lambda quad, tap, vector: (
                    weight + (quad * len(self.offsets) + tap) * self.kernel.group + filters[vector]
                ),
                narrow=self.kernel.narrow,
                streamed=not self.kernel.sparse,
                places=tile.places,
            ).emit()
            for p, row in enumerate(totals):
                for at, total in zip(filters, row, strict=True):
                    store(sums, (pixel + p) * self.kernel.group + at, total.get(), lanes)
