"""Bounds on what a Relax function makes: of each value, and of all that can be computed before it
runs."""

import math
from collections.abc import Iterator
from typing import Any

import tvm
from tvm import relax

from subpc.errors import UnsupportedModelError
from subpc.frontend.limits import CONSTANTS, COPIES_OF_WEIGHTS, MAX_ELEMENTS


def check_sizes(main: relax.Function, inputs: int) -> None:
    """UnsupportedModelError for values that no machine has room for, before anything is
    computed."""
    constant = dict.fromkeys(main.params[inputs:], True)
    left = CONSTANTS + COPIES_OF_WEIGHTS * sum(_elements(var.ty) for var in main.params[inputs:])
    for block in main.body.blocks:
        for binding in block.bindings:
            size = _elements(binding.var.ty)
            name = str(
                getattr(getattr(binding.value, "op", None), "name", "a constant")
            ).removeprefix("relax.")
            if size > MAX_ELEMENTS:
                raise UnsupportedModelError(
                    f"{name} makes {size} elements; at most {MAX_ELEMENTS} are accepted.\nGive a"
                    " smaller input shape, or replace the layer."
                )
            constant[binding.var] = all(
                constant.get(value, False) for value in _variables(binding.value)
            )
            left -= size if constant[binding.var] else 0
            if left < 0:
                raise UnsupportedModelError(
                    f"{name} makes {size} more elements from constants; so many are not accepted"
                    " for weights of this size.\nCompute them from the input, or store them as"
                    " weights."
                )


def _elements(type_: Any) -> int:
    if isinstance(type_, relax.TupleType):
        return sum(map(_elements, type_.fields))
    if not isinstance(type_, relax.TensorType) or not isinstance(type_.shape, relax.ShapeExpr):
        return 0
    return math.prod(int(extent) for extent in type_.shape if isinstance(extent, tvm.tirx.IntImm))


def _variables(value: Any) -> Iterator[Any]:
    """What an expression reads."""
    if isinstance(value, relax.Var):
        yield value
    elif isinstance(value, relax.Call):
        for argument in value.args:
            yield from _variables(argument)
    elif isinstance(value, relax.Tuple):
        for field in value.fields:
            yield from _variables(field)
    elif isinstance(value, relax.TupleGetItem):
        yield from _variables(value.tuple_value)
