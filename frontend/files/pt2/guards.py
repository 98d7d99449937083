"""The conditions that an exported program puts on its inputs, looked at for inputs of another
shape.

torch.export generalises what it has seen: a branch that was taken because one side was even is kept
as `size % 2 == 0`. PyTorch runs these conditions as Python; here they are computed step by step.
"""

import ast
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram

from subpc.errors import ConfigError

_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Div: operator.truediv,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: operator.not_,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "max": max,
    "min": min,
    "abs": abs,
    "Max": max,
    "Min": min,
    "Mod": operator.mod,
    "PythonMod": operator.mod,
    "FloorDiv": operator.floordiv,
    "CleanDiv": operator.floordiv,
    "CeilDiv": lambda a, b: -(-a // b),
    "CeilToInt": math.ceil,
    "FloorToInt": math.floor,
    "TruncToInt": math.trunc,
    "ToFloat": float,
    "IntTrueDiv": operator.truediv,
    "FloatTrueDiv": operator.truediv,
    "And": lambda *a: all(a),
    "Or": lambda *a: any(a),
    "Not": operator.not_,
    "Eq": operator.eq,
    "Ne": operator.ne,
    "Ge": operator.ge,
    "Le": operator.le,
    "Gt": operator.gt,
    "Lt": operator.lt,
}


def check_guards(program: ExportedProgram, inputs: Sequence[Any]) -> None:
    """ConfigError where a program from a file, which PyTorch checks no more, was exported for other
    inputs than these."""
    guards = [] if program.example_inputs else getattr(program, "_guards_code", [])
    signature = program.module_call_graph[0].signature
    names = (
        signature.forward_arg_names if signature else None
    ) or program.graph_signature.user_inputs
    known = {"flat_args": list(inputs), **dict(zip(map(str, names), inputs, strict=False))}
    for text in guards:
        try:
            holds = _value(ast.parse(text, mode="eval").body, known)
        except (KeyError, IndexError, TypeError, ValueError, ArithmeticError, AttributeError):
            # A condition on what is not among these inputs; the shapes themselves are checked when
            # the program runs.
            continue
        if not holds:
            shapes = ", ".join(str(tuple(x.shape)) for x in inputs if isinstance(x, torch.Tensor))
            raise ConfigError(
                "The program was exported for inputs with"
                f" {text.replace('.size()', '.shape')[:120]}, which {shapes} is not.\nPass a shape"
                " that fits, or export the program with this one."
            )


def _value(node: ast.AST, known: dict[str, Any]) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name) and node.id == "L":
        return known
    if isinstance(node, ast.Subscript):
        return _value(node.value, known)[_value(node.slice, known)]
    if isinstance(node, ast.UnaryOp):
        return _OPERATORS[type(node.op)](_value(node.operand, known))
    if isinstance(node, ast.BinOp):
        return _OPERATORS[type(node.op)](_value(node.left, known), _value(node.right, known))
    if isinstance(node, ast.BoolOp):
        values = [bool(_value(part, known)) for part in node.values]
        return all(values) if isinstance(node.op, ast.And) else any(values)
    if isinstance(node, ast.Compare):
        values = [_value(part, known) for part in (node.left, *node.comparators)]
        return all(
            _OPERATORS[type(op)](a, b)
            for op, a, b in zip(node.ops, values, values[1:], strict=False)
        )
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return _FUNCTIONS[node.func.id](*(_value(argument, known) for argument in node.args))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        tensor = _value(node.func.value, known)
        return (
            getattr(tensor, node.func.attr)()
            if node.func.attr in ("size", "stride", "storage_offset")
            else None
        )
    raise TypeError(type(node).__name__)
