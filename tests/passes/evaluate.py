"""Runs a Relax function with PyTorch, before and after our passes: what a pass means, independent
of every kernel."""

from typing import Any

import numpy as np
import torch
import tvm
from torch import nn
from tvm import relax

from subpc.frontend.import_model import import_model
from subpc.passes import ops
from subpc.passes.dataflow import Dataflow
from subpc.passes.pipeline import graph_passes, import_passes
from tests.passes.meanings import MEANINGS, Tensor


def stages(
    net: nn.Module, *shapes: tuple[int, ...], until: str
) -> tuple[tvm.IRModule, tvm.IRModule]:
    """The network as it enters the pass `until`, and as it leaves it."""
    inputs = [torch.rand(shape) for shape in shapes]
    (imported,) = import_model(net.eval(), example_inputs=inputs)
    params = {
        name: tvm.runtime.tensor(np.ascontiguousarray(value))
        for name, value in imported.params.items()
    }
    module = imported.module
    for name, transform in [*import_passes(params, imported.param_names), *graph_passes()]:
        before, module = module, transform(module)
        if name == until:
            return before, module
    raise KeyError(until)


def operators(module: tvm.IRModule) -> list[str]:
    """Names of the operators in order, without `relax.` and without dead ones."""
    graph = Dataflow(module["main"])
    calls = [graph.exprs[var] for var in graph.live()]
    return [call.op.name.removeprefix("relax.") for call in calls if isinstance(call, relax.Call)]


def attributes(module: tvm.IRModule, operator: str) -> list[dict[str, Any]]:
    """The attributes of every call of one of our operators, in order."""
    graph = Dataflow(module["main"])
    assert operator in ops.ALL
    return [
        ops.attributes(call)
        for var in graph.live()
        if (call := graph.call(var, operator)) is not None
    ]


def evaluate(module: tvm.IRModule, *inputs: Tensor) -> list[Tensor]:
    """The outputs of main."""
    graph = Dataflow(module["main"])
    values: dict[relax.Var, Any] = dict(zip(graph.inputs, inputs, strict=False))

    def value(expr: Any) -> Any:
        expr = graph.resolve(expr)
        if isinstance(expr, relax.Var):
            return values[expr]
        if isinstance(expr, relax.Tuple):
            return tuple(value(field) for field in expr.fields)
        if isinstance(expr, tvm.ir.GenericConst):
            return torch.from_numpy(np.array(expr.value.numpy()))
        return expr  # a shape, a number

    for var in graph.live():
        expr = graph.exprs[var]
        if isinstance(expr, relax.Call):
            values[var] = MEANINGS[expr.op.name](expr, *(value(arg) for arg in expr.args))
        elif isinstance(expr, relax.TupleGetItem):
            values[var] = value(expr.tuple_value)[expr.index]
        else:
            values[var] = value(expr)
    return [value(result) for result in graph.outputs()]


def assert_same(before: tvm.IRModule, after: tvm.IRModule, *inputs: Tensor) -> None:
    """Both modules give the same outputs, up to rounding."""
    for a, b in zip(evaluate(before, *inputs), evaluate(after, *inputs), strict=True):
        assert a.shape == b.shape
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5)
