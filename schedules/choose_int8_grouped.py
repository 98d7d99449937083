"""Schedules of depthwise convolutions of codes, and of grouped ones with few filters a group."""

from collections.abc import Iterator

from subpc.schedules.family import Family, Filters
from subpc.schedules.int8_grouped import DEFAULT_ROWS, Int8Grouped, Int8GroupedTile
from subpc.schedules.isa import VectorIsa
from subpc.schedules.layout import TensorLayout
from subpc.schedules.workload import ConvWorkload

MAX_ROWS = 8


def int8_grouped_tiles(
    workload: ConvWorkload, filters: Filters, isa: VectorIsa
) -> Iterator[Int8GroupedTile]:
    """Rows of a register tile; planes that are one long row have one."""
    for rows in range(1, 1 + min(MAX_ROWS, workload.out[1])):
        yield Int8GroupedTile(rows=rows)


def default_int8_grouped_tile(out: TensorLayout) -> Int8GroupedTile:
    """What a layer gets without tuning."""
    return Int8GroupedTile(rows=min(DEFAULT_ROWS, out.frame.height))


GROUPED_I8 = Family(
    name=Int8Grouped.SCHEDULES,
    tile=Int8GroupedTile,
    takes=lambda workload, filters, isa: not workload.flat,
    tiles=int8_grouped_tiles,
    patterns=False,
    precision="int8",
)
