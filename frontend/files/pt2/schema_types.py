"""An exported program held against PyTorch's own description of one: every value is of the type
that stands there, and what does not stand there is left out."""

import dataclasses
import functools
import types
import typing
from enum import Enum
from typing import Any

from torch._export.serde import schema
from torch._export.serde.union import _Union

from subpc.frontend.files.pt2.unsafe import Unsafe

# The empty argument, whose value differs between versions of PyTorch and is not read.
_NOTHING = "as_none"


def program_of_its_types(program: Any) -> dict[str, Any]:
    """The JSON of a program, with its fields as PyTorch declares them; Unsafe where a value is of
    another type, or missing."""
    result: dict[str, Any] = _typed(program, schema.ExportedProgram, "program")
    return result


def config_of_its_types(config: Any) -> dict[str, Any]:
    """The same for the description of weights or constants."""
    kind = getattr(schema, "PayloadConfig", None)
    if kind is None:
        raise Unsafe("this version of torch does not describe weights in such a way")
    result: dict[str, Any] = _typed(config, kind, "weights")
    return result


def _typed(value: Any, kind: Any, name: str) -> Any:
    """`value` as the type `kind` has it; name: where it stands, for messages."""
    kind, optional = _plain(kind)
    if value is None and optional:
        return None
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _object(value, kind, name)
    container, inner = typing.get_origin(kind), typing.get_args(kind)
    if container is list and isinstance(value, list):
        return [_typed(entry, inner[0], name) for entry in value]
    if container is dict and isinstance(value, dict):
        return {key: _typed(entry, inner[1], name) for key, entry in value.items()}
    if container is None and _is_scalar(value, kind):
        return value
    raise _other(value, _word(kind), name)


def _plain(kind: Any) -> tuple[Any, bool]:
    """A type without notes to it, and whether null may stand in its place."""
    if typing.get_origin(kind) is typing.Annotated:
        kind = typing.get_args(kind)[0]
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        first, *_ = (part for part in typing.get_args(kind) if part is not type(None))
        return first, True
    return kind, False


def _object(value: Any, kind: type, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _other(value, "an object", name)
    hints, needed = _fields(kind)
    if issubclass(kind, _Union) and (len(value) != 1 or not value.keys() <= hints.keys()):
        raise Unsafe(f"its {name[:60]} is of a kind that this version of torch does not know")
    missing = sorted(needed - value.keys())
    if missing and not issubclass(kind, _Union):
        raise Unsafe(f"its {name[:60]} lacks {missing[0]}, which PyTorch writes there")
    return {
        key: True if key == _NOTHING else _typed(entry, hints[key], key)
        for key, entry in value.items()
        if key in hints
    }


@functools.cache
def _fields(kind: Any) -> tuple[dict[str, Any], frozenset[str]]:
    """{field: type} of a class of the schema, and which have to be there."""
    hints = typing.get_type_hints(kind, globalns=vars(schema), include_extras=True)
    fields = dataclasses.fields(kind)
    needed = (
        field.name
        for field in fields
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    )
    return {field.name: hints[field.name] for field in fields}, frozenset(needed)


def _is_scalar(value: Any, kind: type) -> bool:
    """Whether JSON's value is one of a type that JSON has; enumerations stand there as their
    numbers, infinities as texts."""
    if issubclass(kind, Enum):
        return type(value) is int and value in {entry.value for entry in kind}
    if kind is float:
        return type(value) in (int, float, str)
    return type(value) is kind


def _other(value: Any, expected: str, name: str) -> Unsafe:
    kind = type(value).__name__
    return Unsafe(f"its {name[:60]} is of the type {kind}; PyTorch writes {expected} there")


def _word(kind: Any) -> str:
    return str(getattr(typing.get_origin(kind) or kind, "__name__", kind))
