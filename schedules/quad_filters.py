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


def sums_by_filter(
    *,
    isa: VectorIsa,
    b: dict[str, Any],
    quads: Any,
    sums: Any,
    channel: Any,
    group: int,
    span: tuple[Any, Any],
    offsets: Sequence[int],
    room: int,
    tiles: Sequence[PixelTile],
    vectors: int,
    columns: int,
    streamed: bool,
) -> None:
    """Leave in sums (pixels, group) what a group's filters add up to.

    quads: packed pixels as words, (quad, room) with all phases; offsets: of each tap there. span:
    where the group's quads begin, and how many there are. vectors: of filters that a register tile
    has; columns: pixels of a row. streamed: as in TileSums.
    """
    lanes = isa.lanes
    for block in range(0, group, vectors * lanes):
        starts = range(block, min(block + vectors * lanes, group), lanes)
        for tile in tiles:
            with T.serial(0, tile.count) as number:
                place = tile.start + number * tile.step
                pixel = tile.first + number * (
                    columns if len(tile.places) < columns else len(tile.places)
                )
                totals = [
                    [
                        Register(lanes, load(b["start"], channel + at, lanes), "int32")
                        for at in starts
                    ]
                    for _ in tile.places
                ]
                with T.serial(0, span[1]) as quad:
                    for tap, offset in enumerate(offsets):
                        weight = ((span[0] + quad) * len(offsets) + tap) * group
                        if streamed:
                            ahead = weight + block + PREFETCH_WEIGHTS
                            prefetch(b["w"], ahead, len(starts) * lanes, write=False)
                        codes = [
                            Register(lanes, load(b["w"], weight + at, lanes), "int32")
                            for at in starts
                        ]
                        for p, row in zip(tile.places, totals, strict=True):
                            word = splat(quads[quad * room + place + offset + p], lanes)
                            bytes_ = tirx.reinterpret(f"{CODES}x{QUAD * lanes}", word)
                            pixels = Register(QUAD * lanes, bytes_, CODES)
                            for total, code in zip(row, codes, strict=True):
                                total.set(dot(total.get(), pixels.get(), code.get(), lanes))
                for p, row in enumerate(totals):
                    for at, total in zip(starts, row, strict=True):
                        store(sums, (pixel + p) * group + at, total.get(), lanes)


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
