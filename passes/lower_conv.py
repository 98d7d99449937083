"""Lowering of convolutions: flat 1xN or dense kernels, phase planes for strides, depthwise, and single pixels as matrix products."""

from typing import TypeVar

import numpy as np
from tvm import relax

from subpc.passes import ops
from subpc.passes.dataflow import constant_of, shape_of
from subpc.passes.detect_pattern import BlockPattern
from subpc.passes.lower import Lowering, Place
from subpc.passes.lower_linear import lower_single_pixel
from subpc.passes.lower_winograd import pack_filters, winograd_kernel, winograd_tile
from subpc.passes.plan_layout import ConvGeometry, conv_geometry, is_flat
from subpc.passes.program import Location
from subpc.schedules.choose_tile import choose_direct_tile, choose_tile
from subpc.schedules.direct_conv import DirectConv, DirectTile
from subpc.schedules.flat_conv import FlatConv, FlatTile
from subpc.schedules.grouped_conv import GroupedConv, GroupedTile
from subpc.schedules.kernel import MAX_PREFETCH_CHANNELS
from subpc.schedules.layout import Frame, TensorLayout
from subpc.schedules.relayout import PhaseSplit
from subpc.schedules.workload import tile_fields

# Output channels of one dense row block; the largest divisor of c_out up to this is taken.
DENSE_ROWS = 8
# Operands of the flat kernel that clamp its input.
BOUNDS = ("floor", "ceiling")
AnyTile = TypeVar("AnyTile", FlatTile, DirectTile, GroupedTile)


def lower_conv2d(low: Lowering, var: relax.Var, call: relax.Call) -> None:
    """A subpc.conv2d: choose the kernel family, bring the input into its layout, pack the weights."""
    attrs = ops.attributes(call)
    if attrs["groups"] == 1 and shape_of(call.args[0])[2:] == (1, 1) and tuple(attrs["out_shape"][2:]) == (1, 1):
        lower_single_pixel(low, var, call)
    elif not is_flat(call):
        _grouped(low, var, call)
    elif low.is_direct(call):
        _direct(low, var, call)
    else:
        _flat(low, var, call)


def _direct(low: Lowering, var: relax.Var, call: relax.Call) -> None:
    attrs = ops.attributes(call)
    weight, bias, pattern = _weights(low, call)
    out_height, out_width = attrs["out_shape"][2:]
    frame = low.frames.read_by(call)
    source = TensorLayout(batch=shape_of(var)[0], channels=weight.shape[1], frame=frame)
    x = low.framed(call.args[0], frame)
    out_frame = low.frames.planar(out_height, out_width)
    residual, out = _output(low, var, call, out_frame)
    in_place = residual == out.location
    operands: dict[str, Location | None] = {"x": x, "bias": low.weights.add(bias), "y": out.location, "residual": residual}
    tile = winograd_tile(low, call, source, out.layout, pattern, disjoint=in_place)
    if tile is not None:
        kept = kept_count(pattern, weight.shape[1])
        winograd = winograd_kernel(call, source, out.layout, pattern, kept, tile, low.isa, in_place=in_place)
        channels = [np.arange(weight.shape[1])] * winograd.groups if pattern is None else [*map(np.flatnonzero, pattern.kept)]
        operands["w"] = low.weights.add(pack_filters(weight, channels, winograd.group, low.isa.lanes * tile.vectors))
        operands["v"] = low.new_buffer(None, winograd.sizes()["v"][0])
        low.emit(attrs["name"], winograd, operands | pack_index(low, pattern, winograd.channel_floats))
        return
    kernel = direct_kernel(low, call, source, out, pattern, weight, in_place=in_place)
    operands |= pack_weights(low, weight, pattern, kernel.group, low.isa.lanes * kernel.tile.vectors, frame.plane)
    low.emit(attrs["name"], kernel, operands)


def _output(low: Lowering, var: relax.Var, call: relax.Call, frame: Frame) -> tuple[Location | None, Place]:
    """Where the residual is (None: there is none), and where the result goes: over the residual if nobody needs that any more."""
    if len(call.args) < 4:
        return None, low.define(var, frame)
    residual = low.framed(call.args[3], frame)
    if low.overwritable(call.args[3], var):
        return residual, low.record(var, residual, TensorLayout(batch=shape_of(var)[0], channels=shape_of(var)[1], frame=frame))
    return residual, low.define(var, frame)


def direct_kernel(
    low: Lowering,
    call: relax.Call,
    source: TensorLayout,
    out: Place,
    pattern: BlockPattern | None,
    weight: np.ndarray,
    *,
    in_place: bool,
) -> DirectConv:
    """The workload of one convolution for the direct kernel, with its default tile."""
    attrs, (c_out, c_in, *size) = ops.attributes(call), weight.shape
    share = pattern.n if pattern else c_out
    blocks = int(pattern.kept.sum()) if pattern else c_in
    tile = tuned_tile(low, attrs["name"], DirectTile) or choose_direct_tile(
        group=share,
        size=(out.layout.frame.height, out.layout.frame.width),
        kernel=(size[0], size[1]),
        stride=attrs["strides"][1],
        dilation=attrs["dilation"][1],
        weight_bytes=4 * blocks * share * size[0] * size[1],
        source_bytes=4 * source.image,
        disjoint=in_place,
        isa=low.isa,
    )
    group = pattern.n if pattern else tile.vectors * low.isa.lanes
    return DirectConv(
        source=source,
        out=out.layout,
        kernel=(size[0], size[1]),
        stride=tuple(attrs["strides"]),
        dilation=tuple(attrs["dilation"]),
        padding=tuple(attrs["padding"][:2]),
        group=group,
        kept=kept_count(pattern, c_in),
        sparse=pattern is not None,
        uniform=pattern is None or pattern.uniform,
        residual=len(call.args) == 4,
        in_place=in_place,
        activation=ops.activation_of(attrs["activation"]),
        tile=tile,
    )


def tuned_tile(low: Lowering, layer: str, tile: type[AnyTile]) -> AnyTile | None:
    """The tile that tuning chose for a layer, None if it has not been tuned."""
    choice = low.choices.get(layer)
    return None if choice is None else tile(**tile_fields(choice))


def kept_count(pattern: BlockPattern | None, c_in: int) -> int:
    """Input channels that a group reads, or all groups together if they differ."""
    if pattern is None:
        return c_in
    return int(pattern.kept[0].sum()) if pattern.uniform else int(pattern.kept.sum())


def _weights(low: Lowering, call: relax.Call) -> tuple[np.ndarray, np.ndarray, BlockPattern | None]:
    """(c_out, c_in, kh, kw) weight, (c_out,) bias, and the pattern that the kernel uses."""
    attrs = ops.attributes(call)
    weight, bias = constant_of(low.graph.resolve(call.args[1])), constant_of(low.graph.resolve(call.args[2]))
    assert weight is not None and bias is not None
    if attrs["groups"] != 1:
        weight, pattern = block_diagonal(weight, attrs["groups"])
        return weight, bias, pattern
    return weight, bias, low.decisions[attrs["name"]].pattern


def _flat(low: Lowering, var: relax.Var, call: relax.Call) -> None:
    attrs, geometry = ops.attributes(call), conv_geometry(call)
    weight, bias, pattern = _weights(low, call)
    frame = low.frames.planar(*geometry.out)
    clamp = low.clamps.get(attrs["name"])
    tuned = tuned_tile(low, attrs["name"], FlatTile)
    by_rows = tuned is not None and tuned.phase_rows
    source, x = _source(low, call.args[0] if clamp is None else clamp.args[0], geometry, frame, attrs["name"], by_rows)
    residual, out = _output(low, var, call, frame)
    kernel = flat_kernel(low, call, geometry, source, out.layout, pattern, weight, in_place=residual == out.location)
    operands: dict[str, Location | None] = {"x": x, "bias": low.weights.add(bias), "y": out.location, "residual": residual}
    operands |= pack_weights(low, weight, pattern, kernel.group, kernel.tile.rows, kernel.phases * source.frame.plane)
    if clamp is not None:
        bounds = [constant_of(low.graph.resolve(bound)) for bound in clamp.args[1:]]
        operands |= {name: low.weights.add(_by_index(bound, pattern)) for name, bound in zip(BOUNDS, bounds, strict=False)}
    if kernel.masked:
        operands["mask"] = low.weights.add(pixel_mask(frame))
    low.emit(attrs["name"], kernel, operands)


def _source(
    low: Lowering, value: relax.Expr, geometry: ConvGeometry, frame: Frame, layer: str, by_rows: bool
) -> tuple[TensorLayout, Location]:
    """The planes that the taps read: the input tensor itself, or its pixels sorted by phase."""
    x = low.graph.resolve(value)
    if geometry.direct:
        return TensorLayout(batch=shape_of(x)[0], channels=shape_of(x)[1], frame=frame), low.framed(x, frame)
    home = low.home(x)
    split = PhaseSplit(source=home.layout, stride=geometry.stride, phases=geometry.phases, out=frame, rows_outer=by_rows)
    planes = low.new_buffer(split.layout, split.layout.floats)
    low.emit(layer, split, {"x": home.location, "y": planes})
    return split.layout, planes


def block_diagonal(weight: np.ndarray, groups: int) -> tuple[np.ndarray, BlockPattern]:
    """A grouped convolution as what it is: a uniform 1xN pattern, N = filters a group, in a weight of all input channels."""
    filters, per_group = weight.shape[0] // groups, weight.shape[1]
    full = np.zeros((weight.shape[0], groups * per_group, *weight.shape[2:]), "float32")
    kept = np.zeros((groups, groups * per_group), bool)
    for group in range(groups):
        rows, channels = slice(group * filters, (group + 1) * filters), slice(group * per_group, (group + 1) * per_group)
        full[rows, channels] = weight[rows]
        kept[group, channels] = True
    return full, BlockPattern(n=filters, kept=kept, uniform=True)


def flat_kernel(
    low: Lowering,
    call: relax.Call,
    geometry: ConvGeometry,
    source: TensorLayout,
    out: TensorLayout,
    pattern: BlockPattern | None,
    weight: np.ndarray,
    *,
    in_place: bool,
) -> FlatConv:
    """The workload of one convolution, with its default tile."""
    (c_out, c_in), name = weight.shape[:2], ops.attributes(call)["name"]
    clamp, tuned = low.clamps.get(name), tuned_tile(low, name, FlatTile)
    dense_rows = tuned.rows if tuned else max(rows for rows in range(1, DENSE_ROWS + 1) if c_out % rows == 0)
    group = pattern.n if pattern else dense_rows
    kept = kept_count(pattern, c_in)
    blocks = kept if pattern and not pattern.uniform else kept * (c_out // group)
    work = 2 * max(1, blocks * group // c_out) * len(geometry.taps)
    tile = tuned or choose_tile(
        group=group,
        row_total=c_out,
        pixels=out.frame.pixels,
        batch=out.batch,
        channel_flops=work,
        weight_bytes=4 * blocks * group * len(geometry.taps),
        source_bytes=4 * source.image,
        isa=low.isa,
    )
    return FlatConv(
        source=source,
        phases=len(geometry.phases),
        out=out,
        taps=geometry.offsets(out.frame),
        group=group,
        kept=kept,
        sparse=pattern is not None,
        uniform=pattern is None or pattern.uniform,
        bounds=BOUNDS[: len(clamp.args) - 1] if clamp is not None else (),
        residual=len(call.args) == 4,
        in_place=in_place,
        activation=ops.activation_of(ops.attributes(call)["activation"]),
        tile=tile,
    )


def pack_weights(
    low: Lowering, weight: np.ndarray, pattern: BlockPattern | None, group: int, rows: int, channel_floats: int
) -> dict[str, Location]:
    """Weights as a register tile of `rows` channels streams them: (group, row block, kept channel, tap, row); and `pack_index`."""
    c_out, c_in, *size = weight.shape
    grouped = weight.reshape(c_out // group, group // rows, rows, c_in, size[0] * size[1]).transpose(0, 1, 3, 4, 2)
    if pattern is None:
        return {"w": low.weights.add(grouped)}
    packed = [blocks[:, kept] for blocks, kept in zip(grouped, pattern.kept, strict=True)]
    weights = low.weights.add(np.concatenate([part.reshape(-1) for part in packed]))
    return {"w": weights} | pack_index(low, pattern, channel_floats)


def pack_index(low: Lowering, pattern: BlockPattern | None, channel_floats: int) -> dict[str, Location]:
    """Where each group's kept channels begin in the input, in floats, and each group in that list if their numbers differ."""
    if pattern is None:
        return {}
    channels = np.concatenate([*map(np.flatnonzero, pattern.kept), np.zeros(MAX_PREFETCH_CHANNELS)]).astype("int32")
    operands = {"index": low.weights.add(channels * np.int32(channel_floats))}
    if not pattern.uniform:
        starts = np.concatenate([[0], np.cumsum(pattern.kept.sum(axis=1))]).astype("int32")
        operands["starts"] = low.weights.add(starts)
    return operands


def _by_index(bound: np.ndarray | None, pattern: BlockPattern | None) -> np.ndarray:
    """A bound of each input channel, in the order in which the kernel meets the channels."""
    assert bound is not None
    return bound if pattern is None else np.concatenate([bound[kept] for kept in pattern.kept])


def pixel_mask(frame: Frame) -> np.ndarray:
    """A plane with 1 for its pixels, and 0 for the columns between rows and everything around them; (plane,)."""
    q = np.arange(frame.plane) - frame.first
    return ((q >= 0) & (q % frame.pitch < frame.width) & (q < frame.pixels)).astype("float32")


def _grouped(low: Lowering, var: relax.Var, call: relax.Call) -> None:
    attrs, geometry = ops.attributes(call), conv_geometry(call)
    weight, bias = constant_of(low.graph.resolve(call.args[1])), constant_of(low.graph.resolve(call.args[2]))
    assert weight is not None and bias is not None
    source_frame, frame = low.frames.planar(*geometry.source), low.frames.planar(*geometry.out)
    x = low.framed(call.args[0], source_frame)
    residual = low.framed(call.args[3], frame) if len(call.args) == 4 else None
    out = low.define(var, frame)
    kernel = GroupedConv(
        source=TensorLayout(batch=out.layout.batch, channels=shape_of(call.args[0])[1], frame=source_frame),
        out=out.layout,
        groups=attrs["groups"],
        kernel=(weight.shape[2], weight.shape[3]),
        stride=tuple(attrs["strides"]),
        padding=tuple(attrs["padding"][:2]),
        dilation=tuple(attrs["dilation"]),
        residual=residual is not None,
        activation=ops.activation_of(attrs["activation"]),
        tile=tuned_tile(low, attrs["name"], GroupedTile) or GroupedTile(),
    )
    operands = {"x": x, "w": low.weights.add(weight), "bias": low.weights.add(bias), "y": out.location}
    low.emit(attrs["name"], kernel, operands | ({"residual": residual} if residual is not None else {}))
