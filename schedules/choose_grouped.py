"""Register tiles of grouped convolutions that the tuner tries."""

import itertools
from collections.abc import Iterator

from subpc.schedules.family import Family, Filters, joins
from subpc.schedules.grouped_conv import GroupedConv
from subpc.schedules.grouped_tile import GroupedTile, default_rows
from subpc.schedules.isa import VectorIsa
from subpc.schedules.layout import TensorLayout
from subpc.schedules.workload import ConvWorkload

ROWS, MIN_ROWS, PREFETCHES = range(1, 15), 4, (0, 1, 2, 4)
# Tiles ahead, where neighbouring tiles are of other planes.
OUTER_PREFETCH = 2


def grouped_tiles(
    workload: ConvWorkload, filters: Filters, isa: VectorIsa
) -> Iterator[GroupedTile]:
    """rows: the register tile; narrow, rows_outer, prefetch: as GroupedTile says."""
    height, width = workload.out[1:]
    usual = default_rows(height, isa)
    for rows in ROWS:
        if (
            rows > height
            or (rows < min(MIN_ROWS, height) and rows != usual)
            or rows > isa.registers // 2
        ):
            continue
        orders = (False, True) if height % rows == 0 and rows < height else (False,)
        widths = (
            (False, True)
            if isa.lanes >= 8 and (width <= isa.lanes // 2 or width % isa.lanes)
            else (False,)
        )
        for narrow, outer, ahead in itertools.product(widths, orders, PREFETCHES):
            yield GroupedTile(rows=rows, narrow=narrow, rows_outer=outer, prefetch=ahead)
        for narrow, ahead, join in itertools.product(widths, (0, 1), joins(workload)):
            yield GroupedTile(rows=rows, narrow=narrow, prefetch=ahead, **join)


def default_grouped_tile(out: TensorLayout, isa: VectorIsa) -> GroupedTile:
    """What a layer gets without tuning.

    Planes that half a vector covers take half vectors. Where a plane has more pixels than the
    tensor has channels, the 1x1 convolutions around it share out pixels, not channels: so does this
    one, and each core reads what it wrote itself. Neighbouring tiles are then of other planes,
    which only a prefetch foresees.
    """
    frame, rows = out.frame, default_rows(out.frame.height, isa)
    divided = frame.height % rows == 0 and rows < frame.height
    rows_outer = divided and frame.height * frame.width > out.channels
    return GroupedTile(
        narrow=isa.lanes >= 8 and frame.width <= isa.lanes // 2,
        rows_outer=rows_outer,
        prefetch=OUTER_PREFETCH if rows_outer else 0,
    )


GROUPED = Family(
    name=GroupedConv.SCHEDULES,
    tile=GroupedTile,
    takes=lambda workload, filters, isa: not workload.flat,
    tiles=grouped_tiles,
    patterns=False,
)
