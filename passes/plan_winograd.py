"""What Winograd's formula gains over a direct convolution."""

import functools
from dataclasses import dataclass

from tvm import relax

from subpc.passes import ops
from subpc.passes.dataflow import shape_of
from subpc.passes.detect_pattern import BlockPattern
from subpc.passes.plan_layout import is_winograd
from subpc.schedules.choose_direct import choose_direct_tile, direct_cost
from subpc.schedules.choose_winograd import WinogradShape, choose_winograd_tile, winograd_cost
from subpc.schedules.isa import VectorIsa
from subpc.schedules.winograd_tile import WinogradTile

# Below this the direct kernel is taken: what both cost is an estimate, and the direct one needs
# neither scratch nor larger filters.
MIN_WINOGRAD_GAIN = 1.05


@dataclass(frozen=True, kw_only=True)
class WinogradEstimate:
    """The best tile, and the time of the direct kernel over time of this one."""

    tile: WinogradTile
    gain: float


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


@functools.lru_cache(maxsize=1024)
def winograd_estimate(shape: WinogradShape, isa: VectorIsa) -> WinogradEstimate | None:
    """Whether the formula is expected to gain enough; None if not. Decisions and lowering ask for
    the same shapes, layers too."""
    tile = choose_winograd_tile(shape, isa)
    if tile is None:
        return None
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
    gain = whole / winograd_cost((tile.rows, tile.columns, tile.vectors), shape, isa)
    return WinogradEstimate(tile=tile, gain=gain) if gain >= MIN_WINOGRAD_GAIN else None


def gain_over_direct(call: relax.Call, pattern: BlockPattern | None, isa: VectorIsa) -> float:
    """What the formula gains with a pattern, or with all blocks; 1.0 where it is not taken."""
    if not is_winograd(call):
        return 1.0
    estimate = winograd_estimate(shape_for(call, pattern, disjoint=False), isa)
    return estimate.gain if estimate is not None else 1.0
