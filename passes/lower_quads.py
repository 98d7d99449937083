"""Lowering of convolutions of codes: strided inputs sorted by phase, weights in quads, scales
folded."""

from tvm import relax

from subpc.passes import ops
from subpc.passes.dataflow import dtype_of
from subpc.passes.lower import Lowering, Place, framed_layout
from subpc.passes.pack_quads import (
    ChannelPlaces,
    QuadGroup,
    by_tap,
    channel_places,
    packed_quads,
    quad_groups,
)
from subpc.passes.place_codes import (
    layer_levels,
    operand_arrays,
    padding_code,
    place_residual,
    requantize,
    result_mask,
    x_quantization,
)
from subpc.passes.place_conv import FilterBlocks, filter_blocks
from subpc.passes.place_planes import fill_halo, sorted_by_phase
from subpc.passes.plan_layout import ConvGeometry, conv_geometry
from subpc.passes.program import Location
from subpc.schedules.choose_quads import QUADS, choose_quad_tile, dense_group
from subpc.schedules.dot import QUAD
from subpc.schedules.layout import TensorLayout
from subpc.schedules.quad_conv import QuadConv
from subpc.schedules.quad_sums import fitting_steps
from subpc.schedules.quantization import CODES
from subpc.schedules.requantize import Requantize


def lower_quads(low: Lowering, var: relax.Var, call: relax.Call) -> None:
    """A subpc.conv2d of codes, with codes or float32 as its result."""
    attrs, geometry = ops.attributes(call), conv_geometry(call)
    filters = filter_blocks(low, call)
    source, x = _source(low, call, geometry)
    residual = place_residual(low, call)
    overwrites = (
        residual is not None
        and residual.layout.dtype == dtype_of(var)
        and low.overwritable(call.args[3], var)
    )
    frame = low.frames.planar(*geometry.out, dtype_of(var))
    if residual is not None and overwrites:
        out = low.record(var, residual.location, framed_layout(var, frame))
    else:
        out = low.define(var, frame)
    levels = layer_levels(call, filters.weight, filters.bias)
    places = channel_places(filters, geometry, source.frame)
    if len(places.taps) < len(geometry.taps):
        filters = by_tap(filters)
    steps = len(places.taps) * -(-len(filters.weight[0]) // QUAD)
    narrow = _narrow(low, filters)
    groups = quad_groups(
        filters, dense_group(len(filters.weight), out.layout.frame, steps, low.isa, narrow)
    )
    in_place = residual is not None and residual.location == out.location
    epilogue = requantize(call, var, levels, in_place=in_place)
    kernel = _kernel(low, call, places, filters, groups, narrow, source, out, residual, epilogue)
    packed = packed_quads(groups, kernel, places.places)
    packed["start"] = (-x_quantization(call).zero_point * packed["start"]).astype("int32")
    operands: dict[str, Location | None] = {
        name: low.weights.add(array)
        for name, array in (packed | operand_arrays(levels, kernel.groups * kernel.group)).items()
    }
    if kernel.masked:
        operands["mask"] = low.weights.add(result_mask(out.layout))
    operands |= {"x": x, "y": out.location}
    operands["residual"] = residual.location if residual is not None else None
    low.emit(attrs["name"], kernel, operands)


def _source(
    low: Lowering, call: relax.Call, geometry: ConvGeometry
) -> tuple[TensorLayout, Location]:
    """The planes that the taps read: the input tensor itself, or its pixels sorted by phase."""
    x, zero = low.graph.resolve(call.args[0]), padding_code(call)
    frame = low.frames.planar(*geometry.out, CODES)
    if not geometry.in_order:
        return sorted_by_phase(low, call, x, geometry, frame, zero_point=zero)
    layout, location = framed_layout(x, frame), low.framed(x, frame)
    fill_halo(low, location, layout, zero)
    return layout, location


def _narrow(low: Lowering, filters: FilterBlocks) -> int | None:
    """What QuadConv calls so; the groups of a dense layer, which depend on it, do not matter."""
    if low.isa.dot == "vnni":
        return None
    return min(fitting_steps(g.codes) for g in quad_groups(filters, len(filters.weight)))


def _kernel(
    low: Lowering,
    call: relax.Call,
    places: ChannelPlaces,
    filters: FilterBlocks,
    groups: list[QuadGroup],
    narrow: int | None,
    source: TensorLayout,
    out: Place,
    residual: Place | None,
    epilogue: Requantize,
) -> QuadConv:
    attrs, pattern = ops.attributes(call), filters.pattern
    group, uniform = len(groups[0].codes), pattern is None or pattern.uniform
    quads = [kept.quads for kept in groups]
    return QuadConv(
        source=source,
        out=out.layout,
        group=group,
        kept=filters.kept,
        sparse=pattern is not None,
        uniform=uniform,
        phases=places.phases,
        taps=places.taps,
        quads=max(quads) if uniform else sum(quads),
        residual=residual.layout if residual is not None else None,
        epilogue=epilogue,
        tile=low.tuned(attrs["name"], QUADS)
        or choose_quad_tile(
            group=group,
            groups=len(groups),
            plane=out.layout.frame,
            batch=out.layout.batch,
            taps=len(places.taps),
            quads=max(quads),
            sparse=pattern is not None,
            isa=low.isa,
            narrow=narrow,
        ),
        narrow=narrow,
    )
