"""Lowering of depthwise convolutions of codes, and of grouped ones with few filters a group."""

import numpy as np
from tvm import relax

from subpc.passes import ops
from subpc.passes.dataflow import constant_of, dtype_of
from subpc.passes.lower import Lowering, framed_layout
from subpc.passes.place_codes import (
    layer_levels,
    operand_arrays,
    padding_code,
    place_residual,
    requantize,
    result_mask,
    x_quantization,
)
from subpc.passes.place_planes import fill_halo
from subpc.passes.plan_layout import conv_geometry
from subpc.passes.program import Location
from subpc.schedules.choose_int8_grouped import GROUPED_I8, default_int8_grouped_tile
from subpc.schedules.int8_grouped import Int8Grouped
from subpc.schedules.quantization import CODES


def lower_int8_grouped(low: Lowering, var: relax.Var, call: relax.Call) -> None:
    """One kernel on the planes as they are, padded with the zero point; it never overwrites its
    residual."""
    attrs, geometry = ops.attributes(call), conv_geometry(call)
    codes, bias = (constant_of(low.graph.resolve(arg)) for arg in call.args[1:3])
    assert codes is not None and bias is not None
    x, frame = low.graph.resolve(call.args[0]), low.frames.planar(*geometry.out, dtype_of(var))
    source = framed_layout(x, low.frames.planar(*geometry.source, CODES))
    location = low.framed(x, source.frame)
    fill_halo(low, location, source, padding_code(call))
    residual = place_residual(low, call)
    out, levels = low.define(var, frame), layer_levels(call, codes, bias)
    kernel = Int8Grouped(
        source=source,
        out=out.layout,
        groups=attrs["groups"],
        kernel=(codes.shape[2], codes.shape[3]),
        stride=tuple(attrs["strides"]),
        padding=tuple(attrs["padding"][:2]),
        dilation=tuple(attrs["dilation"]),
        wide=low.isa.dot == "madd",
        residual=residual.layout if residual is not None else None,
        epilogue=requantize(call, var, levels),
        tile=low.tuned(attrs["name"], GROUPED_I8) or default_int8_grouped_tile(out.layout),
    )
    start = -x_quantization(call).zero_point * codes.astype("int64").sum(axis=(1, 2, 3))
    arrays = operand_arrays(levels, len(codes)) | {
        "w": kernel.pack_weights(codes),
        "start": start.astype("int32"),
    }
    if kernel.masked:
        arrays["mask"] = result_mask(out.layout)
    operands: dict[str, Location | None] = {
        "x": location,
        "residual": residual.location if residual is not None else None,
        "y": out.location,
    }
    weights = {name: low.weights.add(np.ascontiguousarray(array)) for name, array in arrays.items()}
    low.emit(attrs["name"], kernel, operands | weights)
