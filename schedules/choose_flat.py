"""Register tiles and task shapes of flat convolutions: a small cost model, measured, for the
default that the tuner starts from."""

import itertools
from collections.abc import Iterator
from typing import Any

from subpc.schedules.family import (
    JOINED_PREFETCHES,
    ORDERS,
    PREFETCHES,
    Family,
    Filters,
    affordable,
    joins,
)
from subpc.schedules.flat_conv import FlatConv
from subpc.schedules.flat_tile import FlatTile
from subpc.schedules.isa import VectorIsa
from subpc.schedules.layout import MAX_TILE, round_up
from subpc.schedules.workload import ConvWorkload

# A task should take at least this long: starting one costs 20 ns, and a smaller one keeps no
# operand in L1 ...
TASK_NS = 3000.0
# ... but there should be enough tasks that the last one does not leave other threads waiting.
MIN_TASKS = 96
ROWS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12)
VECTORS = (1, 2, 3, 4, 6)
# What the tuner tries.
MAX_ROWS = 16
# A part of the input channels shorter than this spends its time storing and loading sums.
SPLITS, MIN_SPLIT_CHANNELS = (1, 2, 4, 8), 16
# Columns of zeros between two rows, when the frame is not known: its halo is that of a 3x3 filter
# almost everywhere.
USUAL_HALO = 1


def choose_flat_tile(
    *,
    group: int,
    row_total: int,
    pixels: int,
    batch: int,
    channel_flops: int,
    weight_bytes: int,
    source_bytes: int,
    isa: VectorIsa,
) -> FlatTile:
    """The tile with the least time an output pixel, and tasks neither too small nor too few.

    group: output channels that share their input channels (rows must divide it); row_total: output
    channels; pixels: flat range;
    channel_flops: operations of one output channel at one pixel.
    """
    rows, vectors = min(
        ((r, v) for r in ROWS for v in VECTORS if flat_fits(r, v, group, isa)),
        key=lambda tile: flat_cost(tile[0], tile[1], pixels, isa),
    )
    tiles = batch * -(-pixels // (vectors * isa.lanes))
    row_blocks = row_total // rows
    block_ns = channel_flops * rows * vectors * isa.lanes / isa.flops_per_ns
    wanted = min(max(1.0, TASK_NS / block_ns), max(1.0, tiles * row_blocks / MIN_TASKS))
    blocks = max(b for b in range(1, row_blocks + 1) if row_blocks % b == 0 and b <= wanted)
    return FlatTile(
        rows=rows, vectors=vectors, blocks=blocks, pixels_outer=source_bytes > weight_bytes
    )


def flat_fits(rows: int, vectors: int, group: int, isa: VectorIsa) -> bool:
    """Whether sums, one row of loads and a weight fit the registers, and the tile the slack of a
    plane."""
    return (
        group % rows == 0
        and rows * vectors + vectors + 1 <= isa.registers
        and vectors * isa.lanes <= MAX_TILE
    )


def flat_cost(rows: int, vectors: int, pixels: int, isa: VectorIsa, *, tail: bool = False) -> float:
    """Cycles for one tap, an output pixel and channel: multiply-adds or loads, whichever is more,
    and the loop."""
    padded = round_up(pixels, (1 if tail else vectors) * isa.lanes)
    cycles = max(rows * vectors, rows + vectors) / isa.ports + isa.loop_cycles
    return padded * cycles / (rows * vectors)


def flat_tiles(workload: ConvWorkload, filters: Filters, isa: VectorIsa) -> Iterator[FlatTile]:
    """rows, vectors: the register tile; blocks: the task; pixels_outer: loop order; split: parts of
    the input channels."""
    pixels = (workload.out[1] - 1) * (workload.out[2] + USUAL_HALO) + workload.out[2]
    sizes = itertools.product(
        range(1, MAX_ROWS + 1), range(1, MAX_TILE // isa.lanes + 1), (False, True)
    )
    tiles = [
        (flat_cost(r, v, pixels, isa, tail=tail), r, v, tail)
        for r, v, tail in sizes
        if flat_fits(r, v, filters.group, isa)
    ]
    by_phases = (False, True) if max(workload.stride) > 1 else (False,)
    for _, rows, vectors, tail in affordable(tiles):
        row_blocks = workload.out[0] // rows
        blocks = [b for b in range(1, row_blocks + 1) if row_blocks % b == 0]
        for block, outer, ahead, split, by_rows in itertools.product(
            blocks, ORDERS, PREFETCHES, SPLITS, by_phases
        ):
            if split == 1 or filters.kept / split >= MIN_SPLIT_CHANNELS:
                task: dict[str, Any] = {
                    "pixels_outer": outer,
                    "prefetch": ahead,
                    "split": split,
                    "tail": tail,
                    "phase_rows": by_rows,
                }
                yield FlatTile(rows=rows, vectors=vectors, blocks=block, **task)
        for outer, ahead, join in itertools.product(
            ORDERS, JOINED_PREFETCHES, () if tail else joins(workload)
        ):
            yield FlatTile(
                rows=rows, vectors=vectors, blocks=1, pixels_outer=outer, prefetch=ahead, **join
            )


FLAT = Family(
    name=FlatConv.SCHEDULES,
    tile=FlatTile,
    takes=lambda workload, filters, isa: workload.flat,
    tiles=flat_tiles,
    sorts_strides=True,
)
