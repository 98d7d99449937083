"""Networks of floats with roundings between their operators, as a file or an estimate of ranges
puts them."""

from collections.abc import Callable

import numpy as np
import torch
import tvm
from torch import nn
from tvm import relax

from subpc.calibration.interpret import Interpreter
from subpc.passes import ops
from subpc.passes.dataflow import Dataflow, constant_of, rewrite, shape_of
from subpc.schedules.quantization import LARGEST_CODE, Quantization
from tests.passes.evaluate import stages

# What a result is rounded to, given the operator's name without `relax.subpc.` and how many of them
# came before; None: it stays as it is.
Where = Callable[[str, int], Quantization | None]
UNIT = Quantization(scale=1 / 255, zero_point=0)


def everywhere(op: str, number: int) -> Quantization:
    """Other scales and zero points for each value."""
    return Quantization(scale=0.03 + 0.001 * number, zero_point=90 + number % 100)


def fitting(module: tvm.IRModule, *inputs: torch.Tensor) -> Where:
    """Roundings that lose little of a network's values for these inputs, from 0 to 1."""
    interpreter = Interpreter(module)
    numbers = {var: number for number, var in enumerate(interpreter.graph.live())}
    found: dict[int, Quantization] = {}

    def note(var: relax.Var, value: torch.Tensor) -> None:
        low, high = min(0.0, float(value.min())), max(0.0, float(value.max()))
        scale = max(high - low, 1e-3) / LARGEST_CODE
        found[numbers[var]] = Quantization(scale=scale, zero_point=round(-low / scale))

    interpreter.run(*inputs, watch=note)
    return lambda op, number: UNIT if op == "input" else found[number]


def rounded_network(
    net: nn.Module, *shapes: tuple[int, ...], where: Where = everywhere, weights: bool = True
) -> tvm.IRModule:
    """A network with few, large operators (its inputs are values from 0 to 1), rounded where
    `where` says; its weights are codes if so wanted."""
    _, module = stages(net, *shapes, until="fuse_elementwise")
    return with_roundings(module, where, weights=weights)


def with_roundings(module: tvm.IRModule, where: Where, *, weights: bool = True) -> tvm.IRModule:
    def edit(graph: Dataflow) -> None:
        rounded = {x: _rounding(graph, x, where("input", 0)) for x in graph.inputs}
        for number, var in enumerate(graph.live()):
            call = graph.call(var, *ops.ALL)
            if call is None:
                continue
            args = [rounded.get(arg, arg) for arg in map(graph.resolve, call.args)]
            if call.op.name in (ops.CONV2D, ops.LINEAR) and weights:
                args[1] = _stored(graph, call)
            own = relax.Var(str(var.name), relax.TensorType(shape_of(var), "float32"))
            graph.exprs[own] = ops.with_attributes(call, args)
            rounding = where(call.op.name.removeprefix("relax.subpc."), number)
            graph.rebind(var, own)
            rounded[var] = rounded[own] = _rounding(graph, own, rounding)
        graph.output = rounded.get(graph.resolve(graph.output), graph.output)

    return rewrite(module, edit)


def _rounding(graph: Dataflow, x: relax.Expr, to: Quantization | None) -> relax.Expr:
    if to is None:
        return x
    var = relax.Var("rounded", relax.TensorType(shape_of(x), "float32"))
    graph.exprs[var] = ops.make(
        ops.FAKE_QUANTIZE,
        [x],
        quantization=[to.scale, to.zero_point],
        out_shape=list(shape_of(x)),
        name="rounding",
    )
    return var


def _stored(graph: Dataflow, call: relax.Call) -> relax.Expr:
    weight = constant_of(graph.resolve(call.args[1]))
    assert weight is not None
    scales = np.maximum(np.abs(weight.reshape(len(weight), -1)).max(axis=1) / 127, 1e-9)
    codes = np.rint(weight / scales.reshape(-1, *[1] * (weight.ndim - 1))).astype("int8")
    var = relax.Var("weight", relax.TensorType(weight.shape, "float32"))
    graph.exprs[var] = ops.make(
        ops.DEQUANTIZE,
        [relax.const(codes), relax.const(scales.astype("float32"))],
        out_shape=list(weight.shape),
        name=ops.attributes(call)["name"],
    )
    return var
