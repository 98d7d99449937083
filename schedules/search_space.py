"""The schedules that each kernel family offers for a workload: plain data, valid ones only, the default always among them."""

import itertools
from collections.abc import Iterator
from typing import Any, TypeVar

from subpc.schedules.choose_tile import direct_cost, direct_fits, flat_cost, flat_fits
from subpc.schedules.choose_winograd import BLOCKS, MAX_BAND_BYTES, WinogradShape, band_bytes, bands_of, register_tiles, winograd_cost
from subpc.schedules.direct_conv import DirectTile
from subpc.schedules.flat_conv import FlatTile
from subpc.schedules.grouped_conv import GroupedTile, default_rows
from subpc.schedules.isa import VectorIsa
from subpc.schedules.kernel import MAX_PREFETCH_CHANNELS, PREFETCH_CHANNELS
from subpc.schedules.layout import MAX_TILE, TensorLayout, halo_frame
from subpc.schedules.winograd import WinogradTile, fits
from subpc.schedules.workload import (
    DENSE_DIRECT,
    DENSE_FLAT,
    DENSE_WINOGRAD,
    DIRECT,
    FLAT,
    GROUPED,
    WINOGRAD,
    Choice,
    ConvWorkload,
    describe,
)

MAX_ROWS = 16
# A register tile that the cost model of choose_tile.py rates this much dearer than its best one is left out.
MAX_COST = 1.5
PREFETCHES = (0, 6, PREFETCH_CHANNELS, MAX_PREFETCH_CHANNELS)
# A part of the input channels shorter than this spends its time storing and loading sums.
SPLITS, MIN_SPLIT_CHANNELS = (1, 2, 4, 8), 16
ORDERS = (False, True)
# Layers after this one that are computed with it, and in how many bands of rows: few enough to leave each of them some rows.
JOINED, BANDS, MIN_BAND, JOINED_PREFETCHES = (1, 2), range(2, 33), 2, (0, PREFETCH_CHANNELS)
DIRECT_ROWS, DIRECT_VECTORS = (1, 2, 3, 4), (1, 2, 4)
GROUPED_ROWS, MIN_GROUPED_ROWS, GROUPED_PREFETCHES = range(1, 15), 4, (0, 1, 2, 4)
Rated = TypeVar("Rated", tuple[float, int, int, bool], tuple[float, int, int, int])
# Columns of zeros between two rows, when the frame is not known: its halo is that of a 3x3 filter almost everywhere.
USUAL_HALO = 1


def search_space(workload: ConvWorkload, isa: VectorIsa) -> list[Choice]:
    """Every valid schedule of every family that takes the workload, in a fixed order."""
    offers = {
        FLAT: _flat,
        DENSE_FLAT: _dense_flat,
        DIRECT: _direct,
        DENSE_DIRECT: _dense_direct,
        WINOGRAD: _winograd,
        DENSE_WINOGRAD: _dense_winograd,
        GROUPED: _grouped,
    }
    return [choice for family in workload.families(isa) for choice in offers[family](workload, isa)]


def is_valid(choice: Choice, workload: ConvWorkload, isa: VectorIsa) -> bool:
    """Whether a choice, from wherever, is one of the workload's schedules, with every value of the right type."""
    return any(choice == known and _types(choice) == _types(known) for known in search_space(workload, isa))


def _types(choice: Choice) -> dict[str, type]:
    return {name: type(value) for name, value in choice.items()}


def _flat(workload: ConvWorkload, isa: VectorIsa) -> Iterator[Choice]:
    group = workload.n or workload.out[0] // workload.groups
    groups = -(-workload.out[0] // group)
    yield from _flat_tiles(FLAT, workload, group, workload.kept // groups, isa)


def _dense_flat(workload: ConvWorkload, isa: VectorIsa) -> Iterator[Choice]:
    yield from _flat_tiles(DENSE_FLAT, workload, workload.out[0], workload.source[0], isa)


def _flat_tiles(family: str, workload: ConvWorkload, group: int, kept: int, isa: VectorIsa) -> Iterator[Choice]:
    """rows, vectors: the register tile; blocks: the task; pixels_outer: loop order; split: parts of the input channels."""
    pixels = (workload.out[1] - 1) * (workload.out[2] + USUAL_HALO) + workload.out[2]
    sizes = itertools.product(range(1, MAX_ROWS + 1), range(1, MAX_TILE // isa.lanes + 1), (False, True))
    tiles = [(flat_cost(r, v, pixels, isa, tail=tail), r, v, tail) for r, v, tail in sizes if flat_fits(r, v, group, isa)]
    by_phases = (False, True) if max(workload.stride) > 1 else (False,)
    for _, rows, vectors, tail in _affordable(tiles):
        row_blocks = workload.out[0] // rows
        blocks = [b for b in range(1, row_blocks + 1) if row_blocks % b == 0]
        for block, outer, ahead, split, by_rows in itertools.product(blocks, ORDERS, PREFETCHES, SPLITS, by_phases):
            if split == 1 or kept // split >= MIN_SPLIT_CHANNELS:
                task: dict[str, Any] = {"pixels_outer": outer, "prefetch": ahead, "split": split, "tail": tail, "phase_rows": by_rows}
                yield describe(family, FlatTile(rows=rows, vectors=vectors, blocks=block, **task))
        for outer, ahead, join in itertools.product(ORDERS, JOINED_PREFETCHES, () if tail else _joins(workload)):
            yield describe(family, FlatTile(rows=rows, vectors=vectors, blocks=1, pixels_outer=outer, prefetch=ahead, **join))


def _joins(workload: ConvWorkload) -> list[dict[str, Any]]:
    """joined, bands: together with layers that a workload does not know; without effect where that is not possible."""
    bands = [count for count in BANDS if workload.out[1] % count == 0 and workload.out[1] // count >= MIN_BAND]
    return [{"joined": joined, "bands": count} for joined in JOINED for count in bands]


def _affordable(tiles: list[Rated]) -> list[Rated]:
    """Tiles whose cost is not far from the least, the cheapest first."""
    least = min((tile[0] for tile in tiles), default=0.0)
    return sorted(tile for tile in tiles if tile[0] <= MAX_COST * least)


def _direct(workload: ConvWorkload, isa: VectorIsa) -> Iterator[Choice]:
    yield from _direct_tiles(DIRECT, workload, workload.n or workload.out[0] // workload.groups, isa)


def _dense_direct(workload: ConvWorkload, isa: VectorIsa) -> Iterator[Choice]:
    yield from _direct_tiles(DENSE_DIRECT, workload, workload.out[0], isa)


def _direct_tiles(family: str, workload: ConvWorkload, group: int, isa: VectorIsa) -> Iterator[Choice]:
    _, height, width = workload.out
    tiles = [
        (direct_cost(r, c, v, (height, width), workload.kernel, workload.stride[1], workload.dilation[1], isa), r, c, v)
        for r, c, v in itertools.product(DIRECT_ROWS, range(1, width + 1), DIRECT_VECTORS)
        # With a residual, which may lie where the result goes, no pixel may be in two tiles.
        if direct_fits(r, c, v, group, (height, width), workload.residual, isa)
    ]
    for _, rows, columns, vectors in _affordable(tiles):
        shape = {"rows": rows, "columns": columns, "vectors": vectors}
        for outer, ahead in itertools.product(ORDERS, PREFETCHES):
            yield describe(family, DirectTile(**shape, pixels_outer=outer, prefetch=ahead))
        for outer, ahead, join in itertools.product(ORDERS, JOINED_PREFETCHES, _joins(workload)):
            yield describe(family, DirectTile(**shape, pixels_outer=outer, prefetch=ahead, **join))


def _winograd(workload: ConvWorkload, isa: VectorIsa) -> Iterator[Choice]:
    group = workload.n or workload.out[0]
    yield from _winograd_tiles(WINOGRAD, workload, group, workload.kept * group / workload.out[0], isa)


def _dense_winograd(workload: ConvWorkload, isa: VectorIsa) -> Iterator[Choice]:
    yield from _winograd_tiles(DENSE_WINOGRAD, workload, workload.out[0], workload.source[0], isa)


def _winograd_tiles(family: str, workload: ConvWorkload, group: int, kept: float, isa: VectorIsa) -> Iterator[Choice]:
    shape = WinogradShape(
        size=workload.out[1:], channels=(workload.source[0], workload.out[0]), kept=kept, group=group, disjoint=workload.residual
    )
    frame = halo_frame(*workload.source[1:], USUAL_HALO)
    source = TensorLayout(batch=workload.batch, channels=workload.source[0], frame=frame)
    out = TensorLayout(batch=workload.batch, channels=workload.out[0], frame=halo_frame(*workload.out[1:], USUAL_HALO))
    tiles = [(winograd_cost(tile, shape, isa), *tile) for tile in register_tiles(shape, isa)]
    for _, rows, columns, vectors in _affordable(tiles):
        down, across = shape.grid(rows, columns)
        for bands, blocks, outer in itertools.product(bands_of(down), BLOCKS, ORDERS):
            task: dict[str, Any] = {"bands": bands, "blocks": blocks, "pixels_outer": outer}
            tile = WinogradTile(rows=rows, columns=columns, vectors=vectors, **task)
            small = bands == down or band_bytes(shape, rows, columns, bands) <= 2 * MAX_BAND_BYTES
            if small and blocks <= down // bands * across and fits(source, out, workload.padding, tile):
                yield describe(family, tile)


def _grouped(workload: ConvWorkload, isa: VectorIsa) -> Iterator[Choice]:
    height, width = workload.out[1:]
    usual = default_rows(height, isa)
    for rows in GROUPED_ROWS:
        if rows > height or (rows < min(MIN_GROUPED_ROWS, height) and rows != usual) or rows > isa.registers // 2:
            continue
        orders = (False, True) if height % rows == 0 and rows < height else (False,)
        widths = (False, True) if isa.lanes >= 8 and (width <= isa.lanes // 2 or width % isa.lanes) else (False,)
        for narrow, outer, ahead in itertools.product(widths, orders, GROUPED_PREFETCHES):
            yield describe(GROUPED, GroupedTile(rows=rows, narrow=narrow, rows_outer=outer, prefetch=ahead))
        for narrow, ahead, join in itertools.product(widths, (0, 1), _joins(workload)):
            yield describe(GROUPED, GroupedTile(rows=rows, narrow=narrow, prefetch=ahead, **join))
