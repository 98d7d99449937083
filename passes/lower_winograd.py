"""Lowering of 3x3 convolutions to the Winograd kernel, where it is expected to be faster than the
direct one."""

from tvm import relax

from subpc.passes import ops
from subpc.passes.lower import Lowering
from subpc.passes.lower_direct import emit_direct, place_as_it_lies
from subpc.passes.pack_blocks import pack_transformed
from subpc.passes.place_conv import PlacedConv
from subpc.passes.plan_winograd import shape_for, winograd_estimate
from subpc.schedules.choose_winograd import WINOGRAD
from subpc.schedules.winograd import WinogradConv
from subpc.schedules.winograd_tile import WinogradTile, fits


def lower_winograd(low: Lowering, var: relax.Var, call: relax.Call) -> None:
    """One kernel, and memory for what it transforms; the direct kernel where that promises more, or
    a tile reads too far."""
    placed = place_as_it_lies(low, var, call)
    padding: tuple[int, int] = tuple(ops.attributes(call)["padding"][:2])
    tile = _tile(low, call, placed, padding)
    if tile is None:
        emit_direct(low, call, placed)
        return
    rows = tile.vectors * low.isa.lanes
    kernel = WinogradConv(**placed.fields(rows), padding=padding, tile=tile)
    operands = placed.operands(low)
    packed = pack_transformed(
        low.weights, placed.filters, kernel.group, rows, kernel.channel_floats
    )
    scratch = low.new_buffer(kernel.sizes()["v"])
    low.emit(placed.name, kernel, operands | packed | {"v": scratch})


def _tile(
    low: Lowering, call: relax.Call, placed: PlacedConv, padding: tuple[int, int]
) -> WinogradTile | None:
    """The tile of the layer's tuned schedule; where there is none, or it does not fit the planes,
    the best one if it gains enough."""
    estimate = winograd_estimate(
        shape_for(call, placed.filters.pattern, disjoint=placed.epilogue.in_place), low.isa
    )
    wanted = (low.tuned(placed.name, WINOGRAD), estimate.tile if estimate is not None else None)
    return next(
        (
            tile
            for tile in wanted
            if tile is not None and fits(placed.source, placed.out.layout, padding, tile)
        ),
        None,
    )
