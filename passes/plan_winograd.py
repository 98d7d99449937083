"""Which convolutions Winograd's formula takes, and what it gains."""

from tvm import relax

from subpc.passes import ops
from subpc.passes.dataflow import shape_of
from subpc.passes.detect_pattern import BlockPattern
from subpc.schedules.choose_tile import choose_direct_tile, direct_cost
from subpc.schedules.choose_winograd import WinogradShape, choose_winograd_tile, winograd_cost
from subpc.schedules.isa import VectorIsa
from subpc.schedules.winograd import WinogradTile

# Below this the direct kernel is taken: what both cost is an estimate, and the direct one needs neither scratch nor larger filters.
MIN_WINOGRAD_GAIN = 1.05


def is_winograd(call: relax.Call) -> bool:
    """Whether the formula holds: 3x3 filters, every pixel, not grouped."""
    attrs = ops.attributes(call)
    every = tuple(attrs["strides"]) == tuple(attrs["dilation"]) == (1, 1)
    return every and attrs["groups"] == 1 and tuple(shape_of(call.args[1])[2:]) == (3, 3)


def shape_for(call: relax.Call, pattern: BlockPattern | None, *, disjoint: bool) -> WinogradShape:
    """What the tile is chosen for."""
    c_out, c_in = shape_of(call.args[1])[:2]
    return WinogradShape(
        size=tuple(ops.attributes(call)["out_shape"][2:]),
        channels=(c_in, c_out),
        kept=c_in if pattern is None else float(pattern.kept.sum()) / pattern.kept.shape[0],
        group=c_out if pattern is None else pattern.n,
        disjoint=disjoint,
    )


def winograd_gain(tile: WinogradTile, shape: WinogradShape, isa: VectorIsa) -> float:
    """Time of the direct kernel over time of this one."""
    direct = choose_direct_tile(
        group=shape.group,
        size=shape.size,
        kernel=(3, 3),
        stride=1,
        dilation=1,
        weight_bytes=0,
        source_bytes=0,
        disjoint=shape.disjoint,
        isa=isa,
    )
    cycles = direct_cost(direct.rows, direct.columns, direct.vectors, shape.size, (3, 3), 1, 1, isa)
    whole = cycles * shape.kept * shape.channels[1] / isa.lanes
    return whole / winograd_cost((tile.rows, tile.columns, tile.vectors), shape, isa)


def gain_over_direct(call: relax.Call, pattern: BlockPattern | None, isa: VectorIsa) -> float:
    """What the formula gains with a pattern, or with all blocks; 1.0 where it is not taken."""
    shape = shape_for(call, pattern, disjoint=False)
    tile = choose_winograd_tile(shape, isa) if is_winograd(call) else None
    gain = winograd_gain(tile, shape, isa) if tile is not None else 1.0
    return gain if gain >= MIN_WINOGRAD_GAIN else 1.0
