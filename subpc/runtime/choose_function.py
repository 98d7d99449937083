"""Which of a library's functions the user means."""

from collections.abc import Sequence
from typing import Any

from subpc.errors import ConfigError
from subpc.frontend.input_shapes import Input, as_shapes, group_shapes
from subpc.library.report import FunctionInfo


def choose_function(functions: Sequence[FunctionInfo], shapes: Any) -> FunctionInfo:
    """The function for these input shapes, the first one where none are given; ConfigError that
    lists what there is."""
    given = as_shapes(shapes)
    if given is None:
        return functions[0]
    inputs = [
        Input(name=t.name, shape=t.shape if len(functions) == 1 else None, dtype=t.dtype)
        for t in functions[0].inputs
    ]
    groups = group_shapes(given, inputs)
    if len(groups) > 1:
        raise ConfigError(
            f"{len(groups)} sets of input shapes were given; give one of those that the library"
            f" has: {_accepted(functions)}."
        )
    for function in functions:
        if groups[0] == tuple(t.shape for t in function.inputs):
            return function
    seen = " and ".join(",".join(map(str, shape)) for shape in groups[0])
    raise ConfigError(
        f"The library has no function for input {seen}; it takes {_accepted(functions)}."
    )


def _accepted(functions: Sequence[FunctionInfo]) -> str:
    return " or ".join(
        ", ".join(f"{t.name} {','.join(map(str, t.shape))}" for t in function.inputs)
        for function in functions
    )
