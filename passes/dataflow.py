"""A Relax function with one dataflow block, as a graph that passes can edit: the shared mechanism
of every rewrite here."""

from collections.abc import Callable, Iterator

import numpy as np
import tvm
from tvm import relax

FunctionPass = Callable[["Dataflow"], None]


class Dataflow:
    """Variables and what they are bound to, in order. Edits are collected; `function()` builds the
    new Relax function.

    Dead bindings disappear by themselves: only what the output needs is built again.
    """

    def __init__(self, function: relax.Function) -> None:
        """edited: whether `rebind` or `replace` was called."""
        self._function = function
        self.exprs: dict[relax.Var, relax.Expr] = {}
        for block in function.body.blocks:
            for binding in block.bindings:
                self.exprs[binding.var] = binding.value
        self.output: relax.Expr = function.body.body
        self._renamed: dict[relax.Var, relax.Expr] = {}
        self._live: list[relax.Var] | None = None  # until the next edit
        self.edited = False

    @property
    def inputs(self) -> list[relax.Var]:
        """Parameters of the function."""
        return list(self._function.params)

    def outputs(self) -> list[relax.Expr]:
        """What the function returns, a tuple taken apart."""
        value = self.resolve(self.output)
        expr = self.expr(value)
        if isinstance(expr, relax.Tuple):
            return [self.resolve(field) for field in expr.fields]
        return [value]

    def resolve(self, value: relax.Expr) -> relax.Expr:
        """What stands for `value` after all replacements."""
        while isinstance(value, relax.Var):
            if value in self._renamed:
                value = self._renamed[value]
            elif isinstance(self.exprs.get(value), relax.Var | tvm.ir.Constant):
                value = self.exprs[value]
            else:
                break
        return value

    def expr(self, value: relax.Expr) -> relax.Expr:
        """What a variable is bound to; constants and parameters are themselves."""
        value = self.resolve(value)
        return self.exprs.get(value, value) if isinstance(value, relax.Var) else value

    def call(self, value: relax.Expr, *ops: str) -> relax.Call | None:
        """The call that `value` is bound to, if it is one of the operators named."""
        expr = self.expr(value)
        if isinstance(expr, relax.Call) and isinstance(expr.op, tvm.ir.Op) and expr.op.name in ops:
            return expr
        return None

    def calls(self, *ops: str) -> Iterator[tuple[relax.Var, relax.Call]]:
        """Every live binding of one of the operators named, in order; edits made meanwhile are
        seen."""
        for var in list(self.exprs):
            if (
                var in self._renamed
                or var not in self.exprs
                or isinstance(self.exprs[var], relax.Var)
            ):
                continue  # another name for what is yielded under its own
            call = self.call(var, *ops)
            if call is not None:
                yield var, call

    def operands(self, expr: relax.Expr) -> list[relax.Expr]:
        """What an expression reads, tuples taken apart."""
        if isinstance(expr, relax.Call):
            # call_tir and its like name a function first
            found: list[relax.Expr] = []
            for arg in expr.args:
                found += self.operands(arg) if isinstance(arg, relax.Tuple) else [self.resolve(arg)]
            return found
        if isinstance(expr, relax.Tuple):
            return [operand for field in expr.fields for operand in self.operands(field)]
        if isinstance(expr, relax.TupleGetItem):
            return [self.resolve(expr.tuple_value)]
        return [self.resolve(expr)]

    def live(self) -> list[relax.Var]:
        """Bound variables that the output depends on, each after what it reads."""
        if self._live is None:
            self._live = self._in_order()
        return list(self._live)

    def _in_order(self) -> list[relax.Var]:
        order: dict[relax.Var, None] = {}
        stack: list[tuple[relax.Expr, bool]] = [(self.resolve(self.output), False)]
        while stack:
            value, done = stack.pop()
            if isinstance(value, relax.Tuple):
                stack += [(operand, False) for operand in reversed(self.operands(value))]
            if not isinstance(value, relax.Var) or value in order or value not in self.exprs:
                continue
            if done:
                order[value] = None
            else:
                stack.append((value, True))
                stack += [
                    (operand, False) for operand in reversed(self.operands(self.exprs[value]))
                ]
        return list(order)

    def users(self) -> dict[relax.Var, list[relax.Var | None]]:
        """Who reads each variable (None: the function's result). Computed afresh: call it once a
        sweep."""
        readers: dict[relax.Var, list[relax.Var | None]] = {}
        for var in self.live():
            for operand in self.operands(self.exprs[var]):
                if isinstance(operand, relax.Var):
                    readers.setdefault(operand, []).append(var)
        for result in self.outputs():
            if isinstance(result, relax.Var):
                readers.setdefault(result, []).append(None)
        return readers

    def rebind(self, var: relax.Var, expr: relax.Expr) -> None:
        """Let `var` be the result of another expression of the same type."""
        self.exprs[var] = expr
        self._edit()

    def replace(self, var: relax.Var, value: relax.Expr) -> None:
        """Let every reader of `var` read `value` instead."""
        self._renamed[var] = value
        self._edit()

    def _edit(self) -> None:
        self.edited, self._live = True, None

    def has_dead_bindings(self) -> bool:
        """Whether something is computed that the output does not need; other names for values count
        for nothing."""
        return len(self.live()) < sum(
            not isinstance(expr, relax.Var | tvm.ir.Constant) for expr in self.exprs.values()
        )

    def function(self) -> relax.Function:
        """The edited function, normalised, with one dataflow block and no dead bindings."""
        builder = relax.BlockBuilder()
        mapped: dict[relax.Var, relax.Expr] = {}

        def build(value: relax.Expr) -> relax.Expr:
            value = self.resolve(value)
            if isinstance(value, relax.Var):
                return mapped.get(value, value)
            if isinstance(value, relax.Tuple):
                return relax.Tuple([build(field) for field in value.fields])
            return value

        params = self.inputs
        with builder.function("main", params):
            with builder.dataflow():
                for var in self.live():
                    expr = self.exprs[var]
                    if isinstance(expr, relax.Call):
                        expr = relax.Call(
                            expr.op, [build(arg) for arg in expr.args], expr.attrs, expr.ty_args
                        )
                    elif isinstance(expr, relax.TupleGetItem):
                        expr = relax.TupleGetItem(build(expr.tuple_value), expr.index)
                    elif isinstance(expr, relax.Tuple):
                        expr = build(expr)
                    mapped[var] = builder.emit(expr, var.name)
                output = builder.emit_output(build(self.output))
            builder.emit_func_output(output)
        function = builder.finalize()["main"]
        return function.with_attrs(self._function.attrs) if self._function.attrs else function


def shape_of(value: relax.Expr) -> tuple[int, ...]:
    """Static shape of a tensor expression."""
    return tuple(int(extent) for extent in value.ty.shape)


def dtype_of(value: relax.Expr) -> str:
    """Element type of a tensor expression, as NumPy spells it."""
    return str(value.ty.dtype)


def constant_of(value: relax.Expr) -> np.ndarray | None:
    """The array behind a constant, None for anything else."""
    return value.value.numpy() if isinstance(value, tvm.ir.GenericConst) else None


def scalar_of(value: relax.Expr) -> float | None:
    """The value of a constant with one element, None for anything else."""
    array = constant_of(value)
    return float(array.reshape(-1)[0]) if array is not None and array.size == 1 else None


def rewrite(module: tvm.IRModule, edit: FunctionPass) -> tvm.IRModule:
    """Apply `edit` to main and return the new module; all other functions are kept."""
    graph = Dataflow(module["main"])
    edit(graph)
    if not graph.edited and not graph.has_dead_bindings():
        # Nothing to do, and nothing dead: building it again takes longer than most edits.
        return module
    functions = dict(module.functions.items())
    functions[module.get_global_var("main")] = graph.function()
    return tvm.IRModule(functions, attrs=module.attrs)
