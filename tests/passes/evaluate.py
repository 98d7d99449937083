"""Runs a Relax function with PyTorch, before and after our passes: what a pass means, independent
of every kernel."""

from typing import Any

import numpy as np
import torch
import tvm
from torch import nn
from tvm import relax

from subpc.calibration.interpret import Interpreter
from subpc.frontend.import_model import import_model
from subpc.passes import ops
from subpc.passes.dataflow import Dataflow
from subpc.passes.pipeline import graph_passes, import_passes
from subpc.schedules.isa import GENERIC
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
    for name, transform in [*import_passes(params, imported.param_names), *graph_passes(GENERIC)]:
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
    return Interpreter(module, meanings=MEANINGS).run(*inputs)


def assert_same(before: tvm.IRModule, after: tvm.IRModule, *inputs: Tensor) -> None:
    """Both modules give the same outputs, up to rounding."""
    for a, b in zip(evaluate(before, *inputs), evaluate(after, *inputs), strict=True):
        assert a.shape == b.shape
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5)
