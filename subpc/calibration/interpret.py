"""Runs a rewritten graph with PyTorch, tensor by tensor: what every compiled library is compared
with, and where the statistics of its tensors come from."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import tvm
from torch import Tensor
from tvm import relax

from subpc.calibration.meanings import MEANINGS
from subpc.passes import ops
from subpc.passes.dataflow import Dataflow, dtype_of, shape_of
from subpc.passes.other_layers import LAYERS

# Called with each variable and its value, in order.
Watch = Callable[[relax.Var, Tensor], None]
# Weights made of codes: the same for every image, as constants are.
_WEIGHTS = (ops.DEQUANTIZE,)


class Interpreter:
    """The main function of a module, for any number of images at once, in float32 or float64.

    Functions of TVM's operator library (call_tir) are built once and run image by image, in
    float32 whatever `dtype` says. meanings: of operators that may stand in main beside ours.
    """

    def __init__(
        self,
        module: tvm.IRModule,
        *,
        dtype: torch.dtype = torch.float32,
        meanings: Mapping[str, Callable[..., Any]] | None = None,
    ) -> None:
        self.module, self.graph, self.dtype = module, Dataflow(module["main"]), dtype
        self._meanings = {**MEANINGS, **(meanings or {})}
        self._constants: dict[Any, Tensor] = {}
        self._functions: dict[str, Any] = {}

    @torch.no_grad()
    def run(self, *inputs: Tensor, watch: Watch | None = None) -> list[Tensor]:
        """The outputs for inputs (k * n, ...), where n is the first extent that the graph has; so
        are the outputs.

        A value is kept until its last reader has run.
        """
        values: dict[relax.Var, Any] = {
            var: self._typed(x) for var, x in zip(self.graph.inputs, inputs, strict=False)
        }
        count = self._count(inputs)
        left = Counter({var: len(readers) for var, readers in self.graph.users().items()})
        for var in self.graph.live():
            values[var] = self._value(var, values, count)
            if watch is not None and isinstance(values[var], Tensor):
                watch(var, values[var])
            for operand in self.graph.operands(self.graph.exprs[var]):
                left[operand] -= 1
                if left[operand] == 0:
                    values.pop(operand, None)
        return [self._operand(result, values) for result in self.graph.outputs()]

    def _count(self, inputs: tuple[Tensor, ...]) -> int:
        """How many batches of the graph the inputs hold."""
        counts = {
            len(x) // shape_of(var)[0]
            for var, x in zip(self.graph.inputs, inputs, strict=False)
            if shape_of(var) and shape_of(var)[0]
        }
        if len(counts) > 1:
            raise ValueError(f"inputs of {sorted(counts)} batches; all need the same number")
        return counts.pop() if counts else 1

    def _value(self, var: relax.Var, values: dict[relax.Var, Any], count: int) -> Any:
        expr = self.graph.exprs[var]
        if isinstance(expr, relax.TupleGetItem):
            return self._operand(expr.tuple_value, values)[expr.index]
        if not isinstance(expr, relax.Call):
            return self._operand(expr, values)
        if expr.op.name == "relax.call_tir":
            return self._call_function(var, expr, values, count)
        operands = [self._operand(arg, values) for arg in expr.args]
        return self._meanings[expr.op.name](expr, *operands)

    def _operand(self, value: relax.Expr, values: dict[relax.Var, Any]) -> Any:
        value = self.graph.resolve(value)
        if isinstance(value, relax.Var):
            return values[value]
        if isinstance(value, relax.Tuple):
            return tuple(self._operand(field, values) for field in value.fields)
        if isinstance(value, tvm.ir.GenericConst):
            if value not in self._constants:
                self._constants[value] = self._typed(torch.from_numpy(value.value.numpy()))
            return self._constants[value]
        return value  # a shape, a number

    def _typed(self, x: Tensor) -> Tensor:
        return x.to(self.dtype) if x.is_floating_point() else x

    def _call_function(
        self, var: relax.Var, call: relax.Call, values: dict[relax.Var, Any], count: int
    ) -> Any:
        """Results of a function of the module, of `count` batches."""
        name = str(call.args[0].name_hint)
        if name not in self._functions:
            self._functions[name] = _built(self.module[call.args[0]])
        function = self._functions[name]
        operands = self._parts(call, values, count)
        fields = list(var.ty.fields) if isinstance(var.ty, relax.TupleType) else [var.ty]
        results: list[list[Tensor]] = [[] for _ in fields]
        for index in range(count):
            given = [parts[index] for parts in operands]
            made = [
                tvm.runtime.empty([int(n) for n in field.shape], str(field.dtype))
                for field in fields
            ]
            function(*given, *made)
            for result, array in zip(results, made, strict=True):
                result.append(torch.from_numpy(array.numpy()))
        joined = [self._typed(_stacked(result)) for result in results]
        return tuple(joined) if isinstance(var.ty, relax.TupleType) else joined[0]

    def _parts(
        self, call: relax.Call, values: dict[relax.Var, Any], count: int
    ) -> list[list[tvm.runtime.Tensor]]:
        """What each batch gives each operand of a function."""
        exprs = self.graph.operands(call.args[1])
        if isinstance(call.args[1], relax.Var):
            exprs = self.graph.operands(self.graph.expr(call.args[1]))
        found = []
        for expr in exprs:
            x, type_ = self._operand(expr, values), dtype_of(expr)
            every = [x] * count if self._is_fixed(expr) else x.reshape(count, *shape_of(expr))
            found.append([_array(part, type_) for part in every])
        return found

    def _is_fixed(self, value: relax.Expr) -> bool:
        """Whether an operand is the same for every image."""
        value = self.graph.resolve(value)
        return not isinstance(value, relax.Var) or self.graph.call(value, *_WEIGHTS) is not None


def _stacked(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts) if parts[0].dim() else torch.stack(parts)


def _array(x: Tensor, dtype: str) -> tvm.runtime.Tensor:
    # ascontiguousarray would give a number without axes one.
    return tvm.runtime.tensor(np.array(x.numpy(), dtype, order="C"))


def _built(function: tvm.tirx.PrimFunc) -> Any:
    if function.attrs and LAYERS in function.attrs:
        function = function.without_attr(LAYERS)
    module = tvm.IRModule({"main": function.with_attr("global_symbol", "main")})
    return tvm.tirx.build(module, target="llvm")["main"]
