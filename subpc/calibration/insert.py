"""Puts the rounding to codes into a graph: `fake_quantize` behind tensors, `dequantize` in the
place of weights."""

from collections.abc import Mapping

import numpy as np
from tvm import relax

from subpc.passes import ops
from subpc.passes.dataflow import Dataflow, shape_of
from subpc.schedules.quantization import Quantization


def insert_fake_quantize(graph: Dataflow, quantizations: Mapping[relax.Var, Quantization]) -> None:
    """Let every reader of each of these tensors read it rounded to codes and back."""
    readers = graph.users()
    for var, quantization in quantizations.items():
        shape = list(shape_of(var))
        real = var if var in graph.inputs else relax.DataflowVar(f"{var.name}_real", var.ty)
        call = ops.make(
            ops.FAKE_QUANTIZE,
            [real],
            quantization=[quantization.scale, quantization.zero_point],
            out_shape=shape,
            name=_name(graph, var),
        )
        if real is not var:
            graph.rebind(real, graph.exprs[var])
            graph.rebind(var, call)
            continue
        rounded = relax.DataflowVar(f"{var.name}_codes", var.ty)
        graph.rebind(rounded, call)
        for reader in dict.fromkeys(readers[var]):
            if reader is not None:
                _read_instead(graph, reader, var, rounded)


def _name(graph: Dataflow, var: relax.Var) -> str:
    call = graph.call(var, ops.CONV2D, ops.LINEAR)
    return ops.attributes(call)["name"] if call is not None else str(var.name)


def _read_instead(graph: Dataflow, reader: relax.Var, old: relax.Var, new: relax.Var) -> None:
    expr = graph.exprs[reader]
    if isinstance(expr, relax.Call):
        args = [new if graph.resolve(arg).same_as(old) else arg for arg in expr.args]
        graph.rebind(reader, relax.Call(expr.op, args, expr.attrs, expr.ty_args))


def set_weight(
    graph: Dataflow, layer: relax.Var, codes: np.ndarray, scales: np.ndarray, bias: np.ndarray
) -> None:
    """Codes (out, ...) int8 with scales (out,) float32 as the weight of a conv2d or linear, and its
    bias (out,) float32."""
    call = graph.exprs[layer]
    name = f"{layer.name}_weight"
    weight = relax.DataflowVar(name, relax.TensorType(codes.shape, "float32"))
    graph.rebind(
        weight,
        ops.make(
            ops.DEQUANTIZE,
            [relax.const(codes), relax.const(scales)],
            out_shape=list(codes.shape),
            dtype="float32",
            name=ops.attributes(call)["name"],
        ),
    )
    changed = {"transposed": False} if call.op.name == ops.LINEAR else {}
    args = [call.args[0], weight, relax.const(bias), *call.args[3:]]
    graph.rebind(layer, ops.with_attributes(call, args, **changed))
