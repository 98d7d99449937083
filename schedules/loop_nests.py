"""Loops of TIR as plain values: built, copied and filled again."""

from collections.abc import Callable
from typing import Any

import tvm_ffi
from tvm import tirx

INDEX = "int64"


def integer(value: int) -> Any:
    """An index."""
    return tirx.IntImm(INDEX, value)


def extent_of(loop: Any) -> int:
    """How often a loop runs."""
    return int(loop.extent)


def is_plain(loop: Any) -> bool:
    """Whether a loop counts from zero to a number known now."""
    return (
        isinstance(loop.extent, tirx.IntImm)
        and isinstance(loop.min, tirx.IntImm)
        and int(loop.min) == 0
    )


def counted(count: int, body: Callable[[Any], Any], kind: Any = tirx.ForKind.SERIAL) -> Any:
    """body(i) for i below `count`."""
    variable = tirx.Var("i", INDEX)
    return loop_of(variable, count, body(variable), kind)


def loop_of(variable: Any, count: int, body: Any, kind: Any = tirx.ForKind.SERIAL) -> Any:
    """A loop over `variable` below `count`."""
    return tirx.For(variable, integer(0), integer(count), kind, body)


def vectors_of(count: int, lanes: int, body: Callable[[Any], Any]) -> Any:
    """body(i) for i below count * lanes, in vectors."""
    if lanes == 1:
        return counted(count, body, tirx.ForKind.UNROLLED)
    return counted(
        count,
        lambda v: counted(lanes, lambda i: body(v * lanes + i), tirx.ForKind.VECTORIZED),
        tirx.ForKind.UNROLLED,
    )


def loop_again(loop: Any, body: Any) -> Any:
    """The same loop around another body."""
    return tirx.For(
        loop.loop_var, loop.min, loop.extent, loop.kind, body, loop.thread_binding, loop.annotations
    )


def nest(loops: list[Any], body: Any) -> Any:
    """The same loops, the first outermost, around another body."""
    for loop in reversed(loops):
        body = loop_again(loop, body)
    return body


def fresh(stmt: Any) -> Any:
    """The same loops with variables of their own."""
    if not isinstance(stmt, tirx.For):
        return stmt
    variable = tirx.Var(stmt.loop_var.name, stmt.loop_var.ty.dtype)
    body = substituted(stmt.body, {stmt.loop_var: variable})
    return tirx.For(
        variable,
        stmt.min,
        stmt.extent,
        stmt.kind,
        fresh(body),
        stmt.thread_binding,
        stmt.annotations,
    )


def substituted(value: Any, values: dict[Any, Any]) -> Any:
    """`value` with other expressions in place of variables."""
    return tvm_ffi.structural_map(
        value, (tirx.Var, lambda v: next((new for old, new in values.items() if v.same_as(old)), v))
    )


def uses(value: Any, variable: Any) -> bool:
    """Whether an expression depends on a variable."""
    return any(v.same_as(variable) for v in tirx.analysis.undefined_vars(value))
