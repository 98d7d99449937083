"""Where the largest and the smallest number is, as PyTorch says it: the first of equals, and NaN
before everything else.

TVM's library starts at the lowest finite number and no position at all, which stays where all is
minus infinity, and passes NaN over.
"""

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np
from tvm import relax, te, tirx

from subpc.passes.dataflow import shape_of

Legalize = Callable[[relax.BlockBuilder, relax.Call], relax.Expr]
_Found = tuple[Any, Any]  # a position, and the value there


def _position(largest: bool) -> Legalize:
    def legalize(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
        shape = shape_of(call.args[0])
        axes = (
            list(range(len(shape)))
            if call.attrs.axis is None
            else [int(call.attrs.axis) % len(shape)]
        )
        kept = [axis for axis in range(len(shape)) if axis not in axes]

        def compute(x: Any) -> Any:
            inside = [te.reduce_axis((0, shape[axis]), f"k{axis}") for axis in axes]
            better = te.comm_reducer(
                _better(largest),
                lambda index, value: (tirx.const(0, index), _worst(value, largest)),
                name="position",
            )

            def best(*row: Any) -> Any:
                at: list[Any] = [None] * len(shape)
                for axis, i in (*zip(kept, row, strict=True), *zip(axes, inside, strict=True)):
                    at[axis] = i
                return better((_flat([shape[axis] for axis in axes], inside), x(*at)), axis=inside)

            index, _ = te.compute([shape[axis] for axis in kept], best, name="best")
            picked = kept if not call.attrs.keepdims else range(len(shape))
            return te.compute(
                shape_of(call),
                lambda *i: index(*(n for axis, n in zip(picked, i, strict=True) if axis in kept)),
                name="position",
            )

        return builder.call_te(
            compute, call.args[0], primfunc_name_hint="argmax" if largest else "argmin"
        )

    return legalize


def _flat(extents: Sequence[int], inside: Sequence[Any]) -> Any:
    """The place in a row of all that is looked through, in the type of positions."""
    return tirx.Cast(
        "int64",
        reduce(lambda place, step: place * step[0] + step[1], zip(extents, inside, strict=True), 0),
    )


def _worst(dtype: str, largest: bool) -> Any:
    if dtype.startswith("float"):
        return tirx.const(-math.inf if largest else math.inf, dtype)
    if dtype == "bool":
        return tirx.const(not largest, dtype)
    limits = np.iinfo(dtype)
    return tirx.const(int(limits.min if largest else limits.max), dtype)


def _better(largest: bool) -> Callable[[_Found, _Found], _Found]:
    """The better of two, in any order: equal values leave the lower position, as do two NaN."""

    def better(a: _Found, b: _Found) -> _Found:
        (i, x), (j, y) = a, b
        first = tirx.Select(i <= j, i, j)
        beats = y > x if largest else y < x
        index = tirx.Select(beats, j, tirx.Select(x == y, first, i))
        value = tirx.Select(beats, y, x)
        if not str(x.ty.dtype).startswith("float"):
            return index, value
        # Comparisons with infinity tell numbers from NaN; "not (x <= y)" would be simplified to "y
        # < x", which NaN is not either.
        number_x, number_y = (v <= tirx.const(math.inf, v.ty.dtype) for v in (x, y))
        index_of_nan = tirx.Select(number_x, j, tirx.Select(number_y, i, first))
        numbers = tirx.all(number_x, number_y)
        return tirx.Select(numbers, index, index_of_nan), tirx.Select(
            numbers, value, tirx.Select(number_x, y, x)
        )

    return better


POSITIONS: dict[str, Legalize] = {"relax.argmax": _position(True), "relax.argmin": _position(False)}
