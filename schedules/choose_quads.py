"""Register tiles and task shapes of convolutions of codes: a small cost model for the default that
the tuner starts from."""

import itertools
from collections.abc import Iterator

from subpc.schedules.choose_flat import USUAL_HALO
from subpc.schedules.family import Family, Filters, affordable
from subpc.schedules.isa import VectorIsa
from subpc.schedules.layout import LINE_BYTES, MAX_TILE, Frame, round_up
from subpc.schedules.quad_conv import QuadConv
from subpc.schedules.quad_sums import instructions, registers_wanted
from subpc.schedules.quad_tile import QuadTile
from subpc.schedules.workload import ConvWorkload

ROWS = range(1, 17)
# Four vectors of sums are one store of codes; fewer take the same instructions.
VECTORS = (1, 2, 4)
# Filters that a dense layer computes together: their weights for one quad and tap are a cache line.
DENSE_GROUP = 16
# Tasks that a layer is split into at least, where it has so many parts: enough for the threads of a
# desktop CPU to share out evenly.
MIN_TASKS = 16
# Pixels of a band for filters of several taps, which pack a halo besides.
BAND_PIXELS = 256
# Cycles beside the multiply-adds of one tap of a quad: address, loop.
LOOP_CYCLES = 0.5
# Cycles that every filter's store takes, for each tap of each quad before it: few enough that they
# decide between tiles that are equal otherwise.
STORE_CYCLES = 0.5
# vpdpbusd of 256 bits that two ports begin before the first one's sum can be added to: a tile of 8
# sums takes 7 % longer than one of 12.
DOTS_WAITING = 10
# Instructions that take a cycle where there is no vpdpbusd, loads among them.
NARROW_RATE = 1.5
# Registers, of 16 and of more, that LLVM needs besides what a tile without vpdpbusd is made of.
SPARE_REGISTERS = (2, 5)
# Where less than this share of the lanes would be pixels of the plane, lanes are filters: 12 to
# 15 % faster on planes of 7 x 7, slower on 14 x 14 (docs/performance.md). With vpdpbusd loads count
# for more, and a larger share is wanted of it; the first is without it.
MIN_USEFUL = (0.9, 0.8)
# Sums that a tile needs for its loads to stay below its multiplications.
MIN_SUMS = 7
# Fewer taps and quads than this do not pay for the transposition.
MIN_STEPS = 64
# Groups of filters that a task of a sparse layer computes: more find their planes in L2.
SPARSE_BLOCKS = 4


def dense_group(filters: int, plane: Frame, steps: int, isa: VectorIsa, narrow: int | None) -> int:
    """Filters that a dense kernel takes together: a divisor of their number near DENSE_GROUP, else
    DENSE_GROUP with filters of zeros behind the last one; two vectors where lanes are filters.

    steps: taps times quads. narrow: as in QuadConv.
    """
    wide = 2 * isa.lanes
    if filters % wide == 0 and wants_filter_lanes(wide, plane, steps, isa, narrow):
        return wide
    if filters < DENSE_GROUP // 2:
        return filters
    near = range(DENSE_GROUP // 2, 3 * DENSE_GROUP // 2 + 1)
    divisors = [size for size in near if filters % size == 0]
    return min(divisors, key=lambda size: abs(size - DENSE_GROUP), default=DENSE_GROUP)


def wants_filter_lanes(
    group: int, plane: Frame, steps: int, isa: VectorIsa, narrow: int | None
) -> bool:
    """Whether the plane is so small that too few lanes would be pixels, and the sums so long that
    transposing them does not matter."""
    useful = plane.height * plane.width / round_up(plane.pixels, isa.lanes)
    return (
        narrow != 0
        and group % isa.lanes == 0
        and useful < MIN_USEFUL[narrow is None]
        and steps >= MIN_STEPS
        and filter_lanes_size(group, plane, isa, narrow) is not None
    )


def filter_lanes_size(
    group: int, plane: Frame, isa: VectorIsa, narrow: int | None
) -> tuple[int, int] | None:
    """Pixels, whole rows of the plane or an equal part of one, and vectors of filters, whose sums
    registers can hold, with the fewest cycles for a sum; None where only a few sums fit."""
    parts = [plane.width // part for part in (2, 3, 4) if plane.width % part == 0]
    rows = [plane.width * count for count in range(1, plane.height + 1)]
    fitting = [
        (tile_cycles(pixels, vectors, narrow) / (pixels * vectors), -vectors, pixels)
        for vectors in (1, 2)
        for pixels in (*parts, *rows)
        if group % (vectors * isa.lanes) == 0
        and pixels * vectors >= MIN_SUMS
        and quads_fit(pixels, vectors, isa, narrow)
    ]
    if not fitting:
        return None
    _, vectors, pixels = min(fitting)
    return pixels, -vectors


def filter_lanes_tile(
    group: int, groups: int, plane: Frame, batch: int, isa: VectorIsa, narrow: int | None
) -> QuadTile:
    """The largest tile of pixels and filters."""
    size = filter_lanes_size(group, plane, isa, narrow)
    assert size is not None
    blocks = max(1, min(SPARSE_BLOCKS, batch * groups // MIN_TASKS))
    return QuadTile(rows=size[0], vectors=size[1], band=1, blocks=blocks, filter_lanes=True)


def choose_quad_tile(
    *,
    group: int,
    groups: int,
    plane: Frame,
    batch: int,
    taps: int,
    quads: int,
    sparse: bool,
    isa: VectorIsa,
    narrow: int | None,
) -> QuadTile:
    """The tile with the least time, and tasks that are neither too few nor pack too much.

    group: filters that share their channels; groups: of them; quads: of channels that each keeps;
    narrow: as in QuadConv.
    """
    if wants_filter_lanes(group, plane, taps * quads, isa, narrow):
        return filter_lanes_tile(group, groups, plane, batch, isa, narrow)
    pixels = plane.pixels
    rows, vectors, tail = min(
        (
            (r, v, tail)
            for r, v, tail in itertools.product(ROWS, VECTORS, (False, True))
            if quads_fit(r, v, isa, narrow) and r <= group
        ),
        key=lambda tile: (quad_cost(tile, group, pixels, isa, narrow), -tile[1]),
    )
    span = vectors * isa.lanes
    tiles = -(-pixels // span)
    # Whole lines are packed: a band of less would pack pixels that others pack, too.
    line = max(1, LINE_BYTES // span)
    band = line if taps == 1 and not sparse else max(line, min(BAND_PIXELS // span, tiles // 4))
    band = min(band, tiles)
    bands = batch * -(-tiles // band)
    chunks = min(groups, -(-MIN_TASKS // bands))
    blocks = min(-(-groups // chunks), SPARSE_BLOCKS if sparse else groups)
    return QuadTile(rows=rows, vectors=vectors, band=band, blocks=blocks, tail=tail)


def quads_fit(rows: int, vectors: int, isa: VectorIsa, narrow: int | None) -> bool:
    """Whether sums, a row of pixels and a weight fit the registers, and the tile the slack of a
    plane."""
    spare = 0 if narrow is None else SPARE_REGISTERS[isa.registers > 16]
    return (
        registers_wanted(rows, vectors, narrow) <= isa.registers - spare
        and vectors * isa.lanes <= MAX_TILE
    )


def quad_cost(
    tile: tuple[int, int, bool], group: int, pixels: int, isa: VectorIsa, narrow: int | None
) -> float:
    """Cycles for one tap of a quad, a whole plane and one group of filters, with the loop. tile:
    rows, vectors, tail."""
    rows, vectors, tail = tile
    total = -(-pixels // isa.lanes)
    full, rest = divmod(total, vectors)
    widths = [vectors] * full + ([rest if tail else vectors] if rest else [])
    heights = [rows] * (group // rows) + ([group % rows] if group % rows else [])
    waiting = DOTS_WAITING if narrow is None and isa.lanes == 8 else isa.fma_latency
    return sum(
        max(tile_cycles(r, v, narrow), waiting) + LOOP_CYCLES + STORE_CYCLES * r
        for r, v in itertools.product(heights, widths)
    )


def tile_cycles(rows: int, vectors: int, narrow: int | None) -> float:
    """Cycles for one tap of a quad in one tile: multiply-adds or loads, whichever is more, or,
    where sums take several instructions, all of them."""
    if narrow is None:
        return max(rows * vectors, rows + vectors)
    loads = rows * (2 if narrow == 0 else 1) + vectors
    return (instructions(narrow) * rows * vectors + loads) / NARROW_RATE


def quad_tiles(workload: ConvWorkload, filters: Filters, isa: VectorIsa) -> Iterator[QuadTile]:
    """rows, vectors, tail: the register tile; band, blocks: the task."""
    group = workload.n or DENSE_GROUP
    pixels = (workload.out[1] - 1) * (workload.out[2] + USUAL_HALO) + workload.out[2]
    sizes = itertools.product(ROWS, VECTORS, (False, True))
    # A workload does not say how large its codes are: those of 8 bits are the usual ones.
    narrow = None if isa.dot == "vnni" else 1
    tiles = [
        (quad_cost((r, v, tail), group, pixels, isa, narrow), r, v, tail)
        for r, v, tail in sizes
        if quads_fit(r, v, isa, narrow) and r <= group
    ]
    groups = -(-workload.out[0] // group)
    for _, rows, vectors, tail in affordable(tiles):
        count = -(-pixels // (vectors * isa.lanes))
        for band, blocks in itertools.product((1, 2, 3, 4, 6, 8), (1, 2, 4, 8, 16, 32, 64)):
            if band <= count and blocks <= groups:
                yield QuadTile(rows=rows, vectors=vectors, band=band, blocks=blocks, tail=tail)


QUADS = Family(
    name=QuadConv.SCHEDULES,
    tile=QuadTile,
    takes=lambda workload, filters, isa: workload.flat,
    tiles=quad_tiles,
    sorts_strides=True,
    precision="int8",
)
