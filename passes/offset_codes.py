"""Weights whose codes need nine bits, as codes of eight and a number for each filter: exact.

    scale * code = step * scale * eight + offset * scale,      code = step * eight + offset

Odd codes from -255 to 255, as UDFC and DF-MPC write eight bits, have step 2 and offset 1; unsigned
codes less a zero point that is not in the middle have step 1. What the offset adds to a filter's
result is its scale times the sum of what the filter reads, the same for all filters of a group: a
layer of one filter of ones, spread over the filters by a layer with one input.
"""

from dataclasses import dataclass

import numpy as np
from tvm import relax

from subpc.frontend.weight_codes import LARGEST, LOWEST
from subpc.passes import ops
from subpc.passes.dataflow import Dataflow, shape_of

# Codes of eight bits and their steps; powers of two, so that scales stay what they are.
_STEPS = (1, 2)
_SPREAD = "sums of pixels: spread over the filters in float32"


@dataclass(frozen=True, kw_only=True)
class OffsetCodes:
    """codes: (out, ...) of eight bits; scales: (out,), the steps in them; offsets: (out,), values
    that every weight of a filter has more."""

    codes: np.ndarray
    scales: np.ndarray
    offsets: np.ndarray


def offset_codes(codes: np.ndarray, scales: np.ndarray) -> OffsetCodes | None:
    """Codes (out, ...) with scales (out,) as codes of eight bits; None where a filter's span more
    than 256 steps, or lie between them."""
    rows = codes.reshape(len(codes), -1).astype("int64")
    for step in _STEPS:
        rest = rows.min(1) % step
        steps, between = np.divmod(rows - rest[:, None], step)
        shift = np.clip(0, steps.max(1) - LARGEST, steps.min(1) - LOWEST)
        eight = steps - shift[:, None]
        if not between.any() and eight.min() >= LOWEST and eight.max() <= LARGEST:
            return OffsetCodes(
                codes=eight.astype("int8").reshape(codes.shape),
                scales=scales * step,
                offsets=scales * (rest + step * shift),
            )
    return None


def with_offsets(graph: Dataflow, var: relax.Var, call: relax.Call, found: OffsetCodes) -> None:
    """Let a layer multiply the codes, and add what their offsets add.

    Nothing is rounded before that sum: what goes into it is marked `unrounded`.
    """
    a, shape = ops.attributes(call), found.codes.shape
    groups, window = a.get("groups", 1), (a.get("groups", 1), *shape[1:])
    whole = {
        "layer": ops.layer_of(call),
        "layer_shape": list(a.get("layer_shape", shape)),
        "layer_strides": list(a.get("layer_strides", a.get("strides", ()))),
        **({"transposed": 0} if "transposed" in a else {}),
    }
    x, _, bias, *residual = call.args
    out = [int(n) for n in shape_of(var)]
    ones = bind_weight(graph, var, np.ones(window, "int8"), np.ones(groups, "float32"))
    part = {**whole, "name": f"{a['name']}/1", "activation": "none", "unrounded": 1}
    part["out_shape"] = [out[0], groups, *out[2:]]
    sums = bound(graph, var, ops.with_attributes(call, [x, ones, _zeros(groups)], **part))
    spread = relax.const(found.offsets.astype("float32").reshape(-1, *[1] * (len(shape) - 1)))
    part = {**part, "name": f"{a['name']}/2", "why_float": _SPREAD, "out_shape": out}
    if len(shape) == 4:
        part |= {"strides": [1, 1], "padding": [0, 0, 0, 0], "dilation": [1, 1]}
    args = [sums, spread, _zeros(shape[0]), *residual]
    added = bound(graph, var, ops.with_attributes(call, args, **part))
    weight = bind_weight(graph, var, found.codes, found.scales)
    part = {**whole, "name": f"{a['name']}/0"}
    if call.op.name == ops.CONV2D:
        graph.rebind(var, ops.with_attributes(call, [x, weight, bias, added], **part))
        return
    part |= {"activation": "none", "unrounded": 1}
    product = bound(graph, var, ops.with_attributes(call, [x, weight, bias], **part))
    program = ["arg 0", "arg 1", "add", f"act {a['activation']}"]
    graph.rebind(
        var,
        ops.elementwise([product, added], program, ["tensor", "tensor"], tuple(out), a["name"]),
    )


def bind_weight(
    graph: Dataflow, var: relax.Var, codes: np.ndarray, scales: np.ndarray
) -> relax.Var:
    """A variable beside `var` of the weights that codes (out, ...) with scales (out,) stand for."""
    operands = [relax.const(codes.astype("int8")), relax.const(scales.astype("float32"))]
    call = ops.make(ops.DEQUANTIZE, operands, out_shape=list(codes.shape), dtype="float32")
    return bound(graph, var, call)


def bound(graph: Dataflow, var: relax.Var, call: relax.Call) -> relax.Var:
    """A variable beside `var` of what a call computes, float32."""
    shape = tuple(ops.attributes(call)["out_shape"])
    made = relax.Var(f"{var.name}_part", relax.TensorType(shape, "float32"))
    graph.exprs[made] = call
    return made


def _zeros(count: int) -> relax.Expr:
    return relax.const(np.zeros(count, "float32"))
