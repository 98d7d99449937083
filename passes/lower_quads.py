"""Lowering of convolutions of codes: strided inputs sorted by phase, weights in quads, scales
folded."""

from dataclasses import replace

import numpy as np
from tvm import relax

from subpc.passes import ops
from subpc.passes.dataflow import dtype_of
from subpc.passes.lower import Lowering, Place, framed_layout
from subpc.passes.pack_blocks import pixel_mask
from subpc.passes.pack_quads import (
    ChannelPlaces,
    QuadGroup,
    by_tap,
    channel_places,
    packed_quads,
    quad_groups,
)
from subpc.passes.place_conv import FilterBlocks, filter_blocks
from subpc.passes.plan_layout import ConvGeometry, conv_geometry, padding_read
from subpc.passes.program import Location
from subpc.schedules.choose_quads import QUADS, choose_quad_tile, dense_group
from subpc.schedules.dot import QUAD
from subpc.schedules.fill_halo import FillHalo
from subpc.schedules.layout import TensorLayout
from subpc.schedules.quad_conv import QuadConv
from subpc.schedules.quad_sums import fitting_steps
from subpc.schedules.quantization import CODES, LARGEST_CODE, Quantization
from subpc.schedules.relayout import PhaseSplit
from subpc.schedules.requantize import Levels, Requantize, levels_of


def lower_quads(low: Lowering, var: relax.Var, call: relax.Call) -> None:
    """A subpc.conv2d of codes, with codes or float32 as its result."""
    attrs, geometry = ops.attributes(call), conv_geometry(call)
    filters = filter_blocks(low, call)
    source, x = _source(low, call, geometry)
    residual = _residual(low, call, geometry)
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
    groups = quad_groups(
        filters, dense_group(len(filters.weight), out.layout.frame, steps, low.isa)
    )
    kernel = _kernel(low, call, places, filters, groups, source, out, residual, levels)
    packed = packed_quads(groups, kernel, places.places)
    packed["start"] = (-x_quantization(call).zero_point * packed["start"]).astype("int32")
    operands: dict[str, Location | None] = {
        name: low.weights.add(array)
        for name, array in (packed | operand_arrays(levels, kernel.groups * kernel.group)).items()
    }
    if kernel.masked:
        mask = pixel_mask(frame)
        operands["mask"] = low.weights.add(
            (LARGEST_CODE * mask).astype(CODES) if kernel.epilogue.codes else mask
        )
    operands |= {"x": x, "y": out.location}
    operands["residual"] = residual.location if residual is not None else None
    low.emit(attrs["name"], kernel, operands)


def layer_levels(call: relax.Call, codes: np.ndarray, bias: np.ndarray) -> Levels:
    """What brings the sums of a layer on codes to its result."""
    attrs, x = ops.attributes(call), x_quantization(call)
    weights = np.abs(codes.astype("int64")).reshape(len(codes), -1).sum(axis=1)
    return levels_of(
        multiplier=x.scale * np.asarray(attrs["weight_scales"], "float64"),
        bias=bias.astype("float64"),
        largest_sum=float(LARGEST_CODE * weights.max(initial=0)),
        activation=ops.activation_of(attrs["activation"]),
        residual=ops.quantization_of(attrs.get("residual_quantization")),
        result=ops.quantization_of(attrs.get("quantization")),
    )


def x_quantization(call: relax.Call) -> Quantization:
    """What the input of a layer on codes stands for."""
    quantization = ops.quantization_of(ops.attributes(call)["x_quantization"])
    assert quantization is not None
    return quantization


def operand_arrays(levels: Levels, filters: int) -> dict[str, np.ndarray]:
    """multiplier and bias of `filters` filters, zeros behind those of the layer, and levels."""
    room = filters - len(levels.bias)
    return {
        "multiplier": np.pad(levels.multiplier, (0, room)),
        "bias": np.pad(levels.bias, (0, room)),
        "levels": levels.levels,
    }


def fill_halo(
    low: Lowering,
    location: Location,
    layout: TensorLayout,
    zero_point: int,
    *,
    whole: bool = False,
) -> None:
    """Let a tensor's halo hold the zero point; its memory is no longer for those who count on
    zeros there. whole: its pixels, too, where not all of them will be written."""
    if zero_point == 0:
        return
    if location.space == "workspace":
        buffers = low.program.buffers
        buffers[location.index] = replace(buffers[location.index], fill=zero_point)
    kernel = FillHalo(layout=layout, zero_point=zero_point, whole=whole)
    low.emit("padding", kernel, {"y": location})


def _source(
    low: Lowering, call: relax.Call, geometry: ConvGeometry
) -> tuple[TensorLayout, Location]:
    """The planes that the taps read: the input tensor itself, or its pixels sorted by phase."""
    x = low.graph.resolve(call.args[0])
    zero = x_quantization(call).zero_point if padding_read(call) else 0
    frame = low.frames.planar(*geometry.out, CODES)
    if geometry.in_order:
        layout, location = framed_layout(x, frame), low.framed(x, frame)
        fill_halo(low, location, layout, zero)
        return layout, location
    home = low.home(x)
    split = PhaseSplit(
        source=home.layout,
        stride=geometry.stride,
        phases=geometry.phases,
        out=frame,
        fill=zero,
    )
    planes = low.new_buffer(split.layout)
    # Before the pixels: a phase may have a row or column more than the frame says.
    fill_halo(low, planes, split.layout, zero, whole=not split.complete)
    low.emit(ops.attributes(call)["name"], split, {"x": home.location, "y": planes})
    return split.layout, planes


def _residual(low: Lowering, call: relax.Call, geometry: ConvGeometry) -> Place | None:
    if len(call.args) < 4:
        return None
    frame = low.frames.planar(*geometry.out, dtype_of(call.args[3]))
    return Place(
        location=low.framed(call.args[3], frame),
        layout=framed_layout(low.graph.resolve(call.args[3]), frame),
    )


def _kernel(
    low: Lowering,
    call: relax.Call,
    places: ChannelPlaces,
    filters: FilterBlocks,
    groups: list[QuadGroup],
    source: TensorLayout,
    out: Place,
    residual: Place | None,
    levels: Levels,
) -> QuadConv:
    attrs, pattern = ops.attributes(call), filters.pattern
    group, uniform = len(groups[0].codes), pattern is None or pattern.uniform
    quads = [kept.quads for kept in groups]
    narrow = None if low.isa.dot == "vnni" else min(fitting_steps(g.codes) for g in groups)
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
        epilogue=Requantize(
            residual=residual is not None,
            in_place=residual is not None and residual.location == out.location,
            activation=ops.activation_of(attrs["activation"]),
            codes=out.layout.dtype == CODES,
            residual_codes=residual is not None and residual.layout.dtype == CODES,
            limited=levels.limited,
        ),
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
