"""Weights that a file has as whole numbers, as subpc.dequantize in place of their values: what
integer layers take exactly as it is."""

from collections.abc import Mapping

import numpy as np
import tvm
from tvm import relax

from subpc.frontend.weight_codes import WeightCodes
from subpc.passes import ops
from subpc.passes.dataflow import Dataflow, constant_of, rewrite

# Of a weight's size: what rounding leaves where a batch norm was folded into it.
_ROUNDING = 1e-6


def codes_of_layers(
    module: tvm.IRModule, codes: Mapping[str, WeightCodes]
) -> dict[str, WeightCodes]:
    """The codes of each layer whose weight is a parameter that has some, output channels first.

    codes: by the name of the parameter. Run after label_layers, before parameters are bound.
    """
    graph, found = Dataflow(module["main"]), {}
    for _, call in graph.calls(ops.CONV2D, ops.LINEAR):
        weight = graph.resolve(call.args[1])
        known = codes.get(str(weight.name)) if isinstance(weight, relax.Var) else None
        if known is not None:
            a = ops.attributes(call)
            found[str(a["name"])] = known.transposed((1, 0)) if a.get("transposed") else known
    return found


def keep_codes(module: tvm.IRModule, codes: Mapping[str, WeightCodes]) -> tvm.IRModule:
    """Layers whose weights are still these codes, each output channel by a factor, get
    subpc.dequantize as weight.

    codes: by layer. A factor is the file's scale, by that of a batch norm that was folded; it may
    be negative. Layers whose input channels were scaled, or whose codes kernels do not take, keep
    their float weights.
    """
    return rewrite(module, lambda graph: _keep(graph, codes)) if codes else module


def _keep(graph: Dataflow, codes: Mapping[str, WeightCodes]) -> None:
    for var, call in graph.calls(ops.CONV2D, ops.LINEAR):
        a = ops.attributes(call)
        known, weight = codes.get(a["name"]), constant_of(graph.resolve(call.args[1]))
        if known is None or weight is None or known.obstacle:
            continue
        rows = weight.T if a.get("transposed") else weight
        scales = _scales(rows, known.codes)
        if scales is None:
            continue
        kept = relax.Var(f"{var.name}_weight", relax.TensorType(rows.shape, "float32"))
        graph.exprs[kept] = dequantize(known.codes * (_along(scales, rows.ndim) != 0), scales)
        changed = {"transposed": 0} if a.get("transposed") else {}
        graph.rebind(
            var, ops.with_attributes(call, [call.args[0], kept, *call.args[2:]], **changed)
        )


def dequantize(codes: np.ndarray, scales: np.ndarray) -> relax.Call:
    """The weights that whole numbers from -128 to 127 (out, ...) with scales (out,) stand for."""
    operands = [relax.const(codes.astype("int8")), relax.const(scales.astype("float32"))]
    return ops.make(ops.DEQUANTIZE, operands, out_shape=list(codes.shape), dtype="float32")


def _scales(weight: np.ndarray, codes: np.ndarray) -> np.ndarray | None:
    """The factor of each output channel, float32 (out,), 0 where the channel is zero; None where
    the weight is not these codes by factors."""
    if weight.shape != codes.shape:
        return None
    rows, whole = (value.reshape(len(weight), -1).astype("float64") for value in (weight, codes))
    squares = (whole * whole).sum(1)
    scales = (rows * whole).sum(1) / np.where(squares == 0, 1, squares)
    near = np.abs(rows - whole * scales[:, None]) <= _ROUNDING * np.abs(rows)
    return scales.astype("float32") if bool(near.all()) else None


def _along(scales: np.ndarray, rank: int) -> np.ndarray:
    """Scales of output channels, to be multiplied by what has `rank` axes."""
    return scales.reshape(-1, *[1] * (rank - 1))
