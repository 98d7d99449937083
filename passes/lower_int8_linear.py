"""Lowering of fully connected layers on codes."""

import numpy as np
from tvm import relax

from subpc.passes import ops
from subpc.passes.lower import Lowering
from subpc.passes.place_codes import (
    layer_levels,
    operand_arrays,
    requantize,
    x_quantization,
)
from subpc.passes.program import Location
from subpc.schedules.int8_linear import Int8Linear


def lower_int8_linear(
    low: Lowering, var: relax.Var, call: relax.Call, codes: np.ndarray, bias: np.ndarray, rows: int
) -> None:
    """The product of `rows` rows of codes and weights, int8 (outputs, inputs), bias (outputs,)."""
    attrs, (outputs, inputs) = ops.attributes(call), codes.shape
    levels = layer_levels(call, codes, bias)
    added = call.args[3] if len(call.args) == 4 else None
    kernel = Int8Linear(
        rows=rows,
        inputs=inputs,
        outputs=outputs,
        epilogue=requantize(call, var, levels),
    )
    start = np.zeros(kernel.padded_outputs, "int32")
    start[:outputs] = -x_quantization(call).zero_point * codes.astype("int64").sum(axis=1)
    arrays = operand_arrays(levels, kernel.padded_outputs) | {
        "w": kernel.pack_weights(codes),
        "start": start,
    }
    operands: dict[str, Location | None] = {
        "x": low.compact(call.args[0]),
        "residual": low.compact(added) if added is not None else None,
        "y": low.define(var).location,
    }
    weights = {name: low.weights.add(array) for name, array in arrays.items()}
    low.emit(attrs["name"], kernel, operands | weights)
