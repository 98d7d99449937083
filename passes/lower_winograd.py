"""Lowering of 3x3 convolutions to the Winograd kernel, where it is expected to be faster than the direct one."""

from collections.abc import Sequence

import numpy as np
from tvm import relax

from subpc.passes import ops
from subpc.passes.detect_pattern import BlockPattern
from subpc.passes.lower import Lowering
from subpc.passes.plan_winograd import MIN_WINOGRAD_GAIN, is_winograd, shape_for, winograd_gain
from subpc.schedules.choose_winograd import choose_winograd_tile
from subpc.schedules.isa import VectorIsa
from subpc.schedules.layout import TensorLayout
from subpc.schedules.winograd import WinogradConv, WinogradTile, fits
from subpc.schedules.winograd_transforms import transformed_filters
from subpc.schedules.workload import DENSE_WINOGRAD, WINOGRAD, tile_fields


def winograd_tile(
    low: Lowering, call: relax.Call, source: TensorLayout, out: TensorLayout, pattern: BlockPattern | None, *, disjoint: bool
) -> WinogradTile | None:
    """The tile of the Winograd kernel for a convolution, None where the direct one is to be taken."""
    attrs = ops.attributes(call)
    if not is_winograd(call):
        return None
    choice = low.choices.get(attrs["name"])
    shape = shape_for(call, pattern, disjoint=disjoint)
    tile = choose_winograd_tile(shape, low.isa)
    if choice is not None:
        tile = WinogradTile(**tile_fields(choice)) if choice["family"] in (WINOGRAD, DENSE_WINOGRAD) else None
    elif tile is not None and winograd_gain(tile, shape, low.isa) < MIN_WINOGRAD_GAIN:
        return None
    return tile if tile is not None and fits(source, out, tuple(attrs["padding"][:2]), tile) else None


def pack_filters(weight: np.ndarray, kept: Sequence[np.ndarray], group: int, rows: int) -> np.ndarray:
    """Transformed filters as a register tile of `rows` channels streams them: (group, row block, position, kept channel, row)."""
    u = transformed_filters(weight)
    grouped = u.reshape(-1, group // rows, rows, *u.shape[1:]).transpose(0, 1, 4, 3, 2)
    return np.concatenate([blocks[:, :, channels].reshape(-1) for blocks, channels in zip(grouped, kept, strict=True)])


def winograd_kernel(
    call: relax.Call,
    source: TensorLayout,
    out: TensorLayout,
    pattern: BlockPattern | None,
    kept: int,
    tile: WinogradTile,
    isa: VectorIsa,
    *,
    in_place: bool,
) -> WinogradConv:
    """The workload of one convolution."""
    attrs = ops.attributes(call)
    return WinogradConv(
        source=source,
        out=out,
        padding=tuple(attrs["padding"][:2]),
        group=pattern.n if pattern else tile.vectors * isa.lanes,
        kept=kept,
        sparse=pattern is not None,
        uniform=pattern is None or pattern.uniform,
        residual=len(call.args) == 4,
        in_place=in_place,
        activation=ops.activation_of(attrs["activation"]),
        tile=tile,
    )
