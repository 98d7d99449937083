"""What is known of values in TorchScript's source before anything runs: how large texts and tuples
become that PyTorch computes of constants while it loads a file."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

# A number that is computed may be any.
_ANY_NUMBER = 1 << 63


@dataclass(frozen=True)
class Constant:
    """What is known before anything runs. size: letters and entries, each counted wherever it is
    used; number: its largest absolute value; text: whether letters are in it."""

    size: int
    number: int = 0
    text: bool = False


Value = Constant | None  # None: known only when the script runs, or a list, which may be changed


def larger(a: Constant, b: Constant) -> Constant:
    """What is at least as large as both."""
    return Constant(max(a.size, b.size), max(a.number, b.number), a.text or b.text)


def literal(value: str | float | None) -> Constant:
    """A constant that stands in the source."""
    if isinstance(value, str):
        return Constant(len(value), text=True)
    if isinstance(value, bool | None):
        return Constant(1)
    return Constant(1, math.ceil(abs(value)) if math.isfinite(value) else _ANY_NUMBER)


def together(values: Sequence[Constant]) -> Constant:
    """A tuple of these."""
    return Constant(
        1 + sum(value.size for value in values),
        max((value.number for value in values), default=0),
        any(value.text for value in values),
    )


def computed(name: str, constants: Sequence[Constant]) -> Constant:
    """What the operator `name` makes of constants: a text has at most as many letters as all of
    them multiplied; anything else is as large as they are together."""
    keeping, making = _text_operators()
    if name not in making and not (name in keeping and any(value.text for value in constants)):
        return Constant(sum(value.size for value in constants) or 1, _ANY_NUMBER)
    size = math.prod(max(value.size, value.number, 1) for value in constants)
    return Constant(size, _ANY_NUMBER, text=True)


@cache
def _text_operators() -> tuple[frozenset[str], frozenset[str]]:
    """The names of operators that return texts where they get some, and of those that make texts
    of anything."""
    schemas = [
        schema
        for schema in torch._C._jit_get_all_schemas()
        if any(_may_be_text(str(value.type)) for value in schema.returns)
    ]
    keeping = {_base(schema) for schema in schemas} | {"format", "percentFormat"}
    making = {
        _base(schema)
        for schema in schemas
        if any("str" in str(value.type) for value in schema.returns)
        and not any("str" in str(argument.type) for argument in schema.arguments)
    }
    return frozenset(keeping), frozenset(making)


def _may_be_text(kind: str) -> bool:
    """A text, something with texts in it, or whatever a list or tuple has (t, tVal)."""
    return "str" in kind or kind.startswith("t") or "(t" in kind


def _base(schema: Any) -> str:
    return str(schema.name).partition("::")[2]
