"""What NaN, infinities and divisors of zero give: as in PyTorch, where the CPU's own instructions
have another idea.

The hardware's maximum forgets a NaN in its first operand, a maximum that starts at the lowest float
is never minus infinity, and an integer division by zero ends the process.
"""

import math
from collections.abc import Callable
from typing import Any

import tvm
import tvm_ffi
from tvm import s_tir, tirx

INTEGER_DIVISIONS = (tirx.Div, tirx.Mod, tirx.FloorDiv, tirx.FloorMod)


def maximum(a: Any, b: Any) -> Any:
    """max(a, b) of floats, scalars or vectors; NaN where either is."""
    return _extremum(tirx.max, a, b)


def minimum(a: Any, b: Any) -> Any:
    """min(a, b) of floats, scalars or vectors; NaN where either is."""
    return _extremum(tirx.min, a, b)


def _extremum(take: Callable[[Any, Any], Any], a: Any, b: Any) -> Any:
    # The hardware's max and min give their second operand where either is NaN: right for constants
    # first, and for NaN in b.
    if _is_constant(a):
        return take(a, b)
    if _is_constant(b):
        return take(b, a)
    if isinstance(a, tirx.Var | tvm.ir.TensorLoad):
        return _keep(take, a, b)
    var = tirx.Var("a", a.ty.dtype)
    return tirx.Let(var, a, _keep(take, var, b))


def _keep(take: Callable[[Any, Any], Any], a: Any, b: Any) -> Any:
    # A comparison with infinity asks for NaN; "a == a" would be simplified away.
    return tirx.Select(a <= _like(a, math.inf), take(a, b), a)


def _is_constant(value: Any) -> bool:
    if isinstance(value, tirx.Broadcast):
        value = value.value
    return isinstance(value, tirx.FloatImm) and not math.isnan(value.value)


def _like(value: Any, number: float) -> Any:
    """The number in as many lanes as `value` has."""
    return tirx.const(number, str(value.ty.dtype))


def with_special_values(body: Any) -> Any:
    """Plain loops whose maxima and minima of floats keep NaN, and whose integers divided by zero
    are zero."""
    body = tvm_ffi.structural_map(
        body, [(tirx.Max, _keeps_nan(maximum)), (tirx.Min, _keeps_nan(minimum))]
    )
    return tvm_ffi.structural_map(body, [(kind, _never_traps(kind)) for kind in INTEGER_DIVISIONS])


def _keeps_nan(extremum: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
    return lambda node: extremum(node.a, node.b) if _is_float(node) else node


def _never_traps(kind: Any) -> Callable[[Any], Any]:
    """a / 0 and a % 0 as 0; by -1 without the instruction that traps for the lowest integer."""

    def safe(node: Any) -> Any:
        if _is_float(node) or isinstance(node.b, tirx.IntImm):
            return node
        zero, one = (_like(node, number) for number in (0, 1))
        if str(node.ty.dtype).startswith("uint"):
            return tirx.Select(
                node.b == zero, zero, kind(node.a, tirx.Select(node.b == zero, one, node.b))
            )
        minus = _like(node, -1)
        divisor = tirx.Select(tirx.any(node.b == zero, node.b == minus), one, node.b)
        by_minus = zero - node.a if kind in (tirx.Div, tirx.FloorDiv) else zero
        return tirx.Select(
            node.b == zero, zero, tirx.Select(node.b == minus, by_minus, kind(node.a, divisor))
        )

    return safe


def _is_float(node: Any) -> bool:
    return "float" in str(node.ty.dtype)


def reduced_from_infinity(func: Any) -> Any:
    """A function whose maxima start at minus infinity, and minima at infinity, instead of at the
    last finite float."""
    return func.with_body(tvm_ffi.structural_map(func.body, (s_tir.SBlock, _from_infinity)))


def _from_infinity(block: Any) -> Any:
    init, update = block.init, block.body
    if not (
        isinstance(init, tirx.BufferStore)
        and isinstance(update, tirx.BufferStore)
        and _is_float(update.value)
    ):
        return block
    sign = (
        -1 if isinstance(update.value, tirx.Max) else 1 if isinstance(update.value, tirx.Min) else 0
    )
    if sign == 0 or not isinstance(init.value, tirx.FloatImm):
        return block
    start = tirx.BufferStore(init.buffer, _like(init.value, sign * math.inf), init.indices)
    return s_tir.SBlock(
        block.iter_vars,
        block.reads,
        block.writes,
        block.name_hint,
        block.body,
        start,
        block.alloc_buffers,
        block.match_buffers,
        block.annotations,
    )
