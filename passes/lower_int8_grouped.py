"""Lowering of depthwise convolutions of codes, and of grouped ones with few filters a group."""

import numpy as np
from tvm import relax

from subpc.passes import ops
from subpc.passes.dataflow import constant_of, dtype_of
from subpc.passes.lower import Lowering, framed_layout
from subpc.passes.lower_quads import fill_halo, layer_levels, operand_arrays, x_quantization
from subpc.passes.pack_blocks import pixel_mask
from subpc.passes.plan_layout import conv_geometry, padding_read
from subpc.passes.program import Location
from subpc.schedules.choose_int8_grouped import GROUPED_I8, default_int8_grouped_tile
from subpc.schedules.int8_grouped import Int8Grouped
from subpc.schedules.quantization import CODES, LARGEST_CODE
from subpc.schedules.requantize import Requantize


def lower_int8_grouped(low: Lowering, var: relax.Var, call: relax.Call) -> None:
    """One kernel on the planes as they are, padded with the zero point; it never overwrites its
    residual."""
    attrs, geometry = ops.attributes(call), conv_geometry(call)
    codes, bias = (constant_of(low.graph.resolve(arg)) for arg in call.args[1:3])
    assert codes is not None and bias is not None
    x, frame = low.graph.resolve(call.args[0]), low.frames.planar(*geometry.out, dtype_of(var))
    source = framed_layout(x, low.frames.planar(*geometry.source, CODES))
    location = low.framed(x, source.frame)
    zero = x_quantization(call).zero_point
    fill_halo(low, location, source, zero if padding_read(call) else 0)
    added, residual, kept = call.args[3:4], None, None
    if added:
        kept_frame = low.frames.planar(*geometry.out, dtype_of(added[0]))
        residual = low.framed(added[0], kept_frame)
        kept = framed_layout(low.graph.resolve(added[0]), kept_frame)
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
        residual=kept,
        epilogue=Requantize(
            residual=kept is not None,
            activation=ops.activation_of(attrs["activation"]),
            codes=out.layout.dtype == CODES,
            residual_codes=kept is not None and kept.dtype == CODES,
            limited=levels.limited,
        ),
        tile=low.tuned(attrs["name"], GROUPED_I8) or default_int8_grouped_tile(out.layout),
    )
    start = -zero * codes.astype("int64").sum(axis=(1, 2, 3))
    arrays = operand_arrays(levels, len(codes)) | {
        "w": kernel.pack_weights(codes),
        "start": start.astype("int32"),
    }
    if kernel.masked:
        mask = pixel_mask(frame)
        arrays["mask"] = (LARGEST_CODE * mask).astype(CODES) if kernel.epilogue.codes else mask
    operands: dict[str, Location | None] = {
        "x": location,
        "residual": residual,
        "y": out.location,
    }
    weights = {name: low.weights.add(np.ascontiguousarray(array)) for name, array in arrays.items()}
    low.emit(attrs["name"], kernel, operands | weights)
