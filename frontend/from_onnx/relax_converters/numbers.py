"""Arithmetic of ONNX that TVM's importer gets wrong, or has none of: remainders, powers, shifts,
running sums, reductions of nothing."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tvm
from tvm import relax, te

from subpc.frontend.from_onnx.graph import NodeError
from subpc.frontend.running import running

_C_FMOD = {"float32": "fmodf", "float64": "fmod"}

Converter = Callable[[list[Any], dict[str, Any], int], Any]


def modulo(inputs: list[Any], attrs: dict[str, Any], opset: int) -> Any:
    """Of floats: the remainder that C's fmod gives, exactly and with infinities; with the divisor's
    sign where fmod is 0."""
    x, y = inputs
    if not _is_float(x):
        return None
    remainder = relax.BlockBuilder.current().call_te(_fmod, x, y)
    if attrs.get("fmod", 0):
        return remainder
    zero = relax.const(0, x.ty.dtype)
    signs_differ = relax.op.logical_xor(relax.op.less(remainder, zero), relax.op.less(y, zero))
    added = relax.op.where(signs_differ, relax.op.add(remainder, y), remainder)
    return relax.op.where(
        relax.op.equal(remainder, zero),
        relax.op.multiply(relax.op.abs(remainder), relax.op.sign(y)),
        added,
    )


def _fmod(a: Any, b: Any) -> Any:
    shape = np.broadcast_shapes(*([int(n) for n in t.shape] for t in (a, b)))
    a, b = (tvm.topi.broadcast_to(t, shape) for t in (a, b))
    return te.compute(
        shape,
        lambda *i: tvm.tirx.call_pure_extern(a.dtype, _C_FMOD[str(a.dtype)], a(*i), b(*i)),
        name="fmod",
    )


def power(inputs: list[Any], attrs: dict[str, Any], opset: int) -> Any:
    """The result has the type of the base; integers go through float64, which holds them up to
    2^53."""
    base, exponent = inputs
    types = [str(value.ty.dtype) for value in inputs]
    if types[0] == types[1] and _is_float(base):
        return None
    if _is_float(base):
        return relax.op.power(base, relax.op.astype(exponent, types[0]))
    wide = relax.op.power(relax.op.astype(base, "float64"), relax.op.astype(exponent, "float64"))
    return relax.op.astype(wide if _is_float(exponent) else relax.op.round(wide), types[0])


def bit_shift(inputs: list[Any], attrs: dict[str, Any], opset: int) -> Any:
    """Shifting by as many bits as there are, or more, or by less than none, leaves nothing: to the
    right, the sign."""
    x, count = inputs
    bits = np.dtype(str(x.ty.dtype)).itemsize * 8
    left = attrs["direction"] in (b"LEFT", "LEFT")
    outside = relax.op.logical_or(
        relax.op.less(count, const_like(0, count)),
        relax.op.greater_equal(count, const_like(bits, count)),
    )
    shift = relax.op.left_shift if left else relax.op.right_shift
    inside = shift(x, relax.op.where(outside, const_like(0, count), count))
    rest = (
        relax.op.where(relax.op.less(x, const_like(0, x)), const_like(-1, x), const_like(0, x))
        if not left and "u" not in str(x.ty.dtype)
        else const_like(0, x)
    )
    return relax.op.where(outside, rest, inside)


def is_infinite(inputs: list[Any], attrs: dict[str, Any], opset: int) -> Any:
    """Infinities of one sign, or of both."""
    signs = [
        sign
        for sign, name in ((1, "detect_positive"), (-1, "detect_negative"))
        if attrs.get(name, 1)
    ]
    if not signs:
        return relax.const(np.zeros([int(n) for n in inputs[0].ty.shape], bool))
    if len(signs) == 2:
        return relax.op.isinf(inputs[0])
    return relax.op.equal(inputs[0], const_like(signs[0] * math.inf, inputs[0]))


def cumulative(operator: Callable[[Any, Any], Any], neutral: float) -> Converter:
    """CumSum and CumProd along a constant axis."""

    def convert(inputs: list[Any], attrs: dict[str, Any], opset: int) -> Any:
        if not isinstance(inputs[1], tvm.ir.GenericConst):
            raise NodeError("its axis depends on the input")
        axis = int(np.asarray(inputs[1].value.numpy()).reshape(()))
        options = {name: bool(attrs.get(name, 0)) for name in ("exclusive", "reverse")}
        return running(inputs[0], axis, operator, neutral, **options)

    return convert


def reduction(of_nothing: float) -> Converter:
    """A reduction, whose result for an empty set TVM has not. of_nothing: that result; the others
    are TVM's but for truth values."""

    def convert(inputs: list[Any], attrs: dict[str, Any], opset: int) -> Any:
        x = inputs[0]
        shape = [int(n) for n in x.ty.shape]
        axes = _axes(inputs, attrs, len(shape))
        if axes is None:
            return None
        keep = bool(attrs.get("keepdims", 1))
        if not math.prod(shape):
            kept = [1 if i in axes else n for i, n in enumerate(shape) if keep or i not in axes]
            return relax.const(np.full(kept, _fill(of_nothing, str(x.ty.dtype))), str(x.ty.dtype))
        if str(x.ty.dtype) == "bool" and of_nothing in (math.inf, -math.inf) and axes:
            reduce = relax.op.min if of_nothing > 0 else relax.op.max
            return relax.op.astype(reduce(relax.op.astype(x, "int8"), axes, keep), "bool")
        return None

    return convert


def _fill(value: float, dtype: str) -> Any:
    if dtype == "bool":
        return value > 0
    limits = None if dtype.startswith("float") else np.iinfo(dtype)
    return value if limits is None else min(max(value, limits.min), limits.max)


def _axes(inputs: list[Any], attrs: dict[str, Any], rank: int) -> list[int] | None:
    """The axes that are reduced; None where they are not known."""
    given = inputs[1] if len(inputs) > 1 else attrs.get("axes")
    if given is not None and not isinstance(given, list | tuple):
        if not isinstance(given, tvm.ir.GenericConst):
            return None
        given = np.asarray(given.value.numpy()).reshape(-1).tolist()
    if not given:
        return [] if attrs.get("noop_with_empty_axes", 0) else list(range(rank))
    return [int(axis) % rank for axis in given]


def one_hot(inputs: list[Any], attrs: dict[str, Any], opset: int) -> Any:
    """Equal to a row of numbers or not; indices below zero count from the end, and those outside
    are nowhere."""
    indices, depth, values = inputs
    if not isinstance(depth, tvm.ir.GenericConst):
        raise NodeError("its depth depends on the input")
    count, rank = int(np.asarray(depth.value.numpy()).reshape(())), int(indices.ty.ndim) + 1
    axis = int(attrs.get("axis", -1)) % rank
    wanted = relax.op.where(
        relax.op.less(indices, const_like(0, indices)),
        relax.op.add(indices, const_like(count, indices)),
        indices,
    )
    row = (
        np.arange(count)
        .astype(str(indices.ty.dtype))
        .reshape([count if i == axis else 1 for i in range(rank)])
    )
    chosen = relax.op.equal(relax.op.expand_dims(wanted, axis), relax.const(row, str(row.dtype)))
    off, on = (relax.op.strided_slice(values, [0], [i], [i + 1]) for i in (0, 1))
    return relax.op.where(chosen, on, off)


def _is_float(value: Any) -> bool:
    return str(value.ty.dtype).startswith("float")


def const_like(value: float, like: Any) -> Any:
    """A scalar constant of the element type of `like`, a Relax tensor."""
    return relax.const(value, str(like.ty.dtype))


CONVERTERS: dict[str, Converter] = {
    "BitShift": bit_shift,
    "CumProd": cumulative(relax.op.multiply, 1),
    "CumSum": cumulative(relax.op.add, 0),
    "IsInf": is_infinite,
    "Mod": modulo,
    "OneHot": one_hot,
    "Pow": power,
    **{name: reduction(0) for name in ("ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare")},
    **{name: reduction(-math.inf) for name in ("ReduceLogSum", "ReduceLogSumExp", "ReduceMax")},
    "ReduceMean": reduction(math.nan),
    "ReduceMin": reduction(math.inf),
    "ReduceProd": reduction(1),
}
