"""Lowering of fully connected layers, and of convolutions on single pixels, which are the same
thing."""

import math

import numpy as np
from tvm import relax

from subpc.passes import ops
from subpc.passes.dataflow import constant_of, dtype_of, shape_of
from subpc.passes.lower import Lowering, compact_layout
from subpc.passes.lower_int8_linear import lower_int8_linear
from subpc.schedules.elementwise import Elementwise
from subpc.schedules.linear import Linear
from subpc.schedules.quantization import CODES


def lower_linear(low: Lowering, var: relax.Var, call: relax.Call) -> None:
    """A subpc.linear on (..., inputs)."""
    weight = constant_of(low.graph.resolve(call.args[1]))
    assert weight is not None
    if ops.attributes(call)["transposed"]:
        weight = weight.T
    _matrix_product(low, var, call, weight, math.prod(shape_of(var)[:-1]))


def lower_single_pixel(low: Lowering, var: relax.Var, call: relax.Call) -> None:
    """A subpc.conv2d from one pixel to one pixel: only the tap that meets it counts, the others
    read padding."""
    attrs = ops.attributes(call)
    weight = constant_of(low.graph.resolve(call.args[1]))
    assert weight is not None
    (top, left), (dy, dx) = attrs["padding"][:2], attrs["dilation"]
    if top % dy or left % dx or top // dy >= weight.shape[2] or left // dx >= weight.shape[3]:
        weight = np.zeros_like(weight[:, :, 0, 0])
    else:
        weight = weight[:, :, top // dy, left // dx]
    _matrix_product(low, var, call, weight, attrs["out_shape"][0])


def _matrix_product(
    low: Lowering, var: relax.Var, call: relax.Call, weight: np.ndarray, rows: int
) -> None:
    attrs, bias = ops.attributes(call), constant_of(low.graph.resolve(call.args[2]))
    outputs, inputs = weight.shape
    if dtype_of(call.args[0]) == CODES:
        values = np.zeros(outputs, "float32") if bias is None else bias
        lower_int8_linear(low, var, call, weight, values, rows)
        return
    residual = low.compact(call.args[3]) if len(call.args) == 4 else None
    activation = ops.activation_of(attrs["activation"])
    kernel = Linear(
        rows=rows,
        inputs=inputs,
        outputs=outputs,
        activation=ops.activation_of("none") if residual is not None else activation,
    )
    x, out = low.compact(call.args[0]), low.define(var)
    operands = {
        "x": x,
        "w": low.weights.add(kernel.pack_weights(weight)),
        "bias": low.weights.add(kernel.pack_bias(bias)),
    }
    low.emit(attrs["name"], kernel, operands | {"y": out.location})
    if residual is not None:
        # Rare (a shortcut around a single pixel): a second pass instead of another epilogue.
        layout = compact_layout((rows * outputs,), out.layout.dtype)
        add = Elementwise(
            layout=layout, inputs=("tensor", "tensor"), program=(0, 1, "add", activation)
        )
        low.emit(attrs["name"], add, {"x0": out.location, "x1": residual, "y": out.location})
