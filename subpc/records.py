"""Records: frozen dataclasses that turn into plain JSON values and back."""

import types
import typing
from dataclasses import fields
from typing import Any, TypeVar

from subpc.errors import ConfigError

_R = TypeVar("_R", bound="Record")


class Record:
    """A frozen dataclass that turns into plain JSON values and back; unknown and missing keys are
    refused."""

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, strings and numbers."""
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self)}  # type: ignore[arg-type]

    @classmethod
    def from_dict(cls: type[_R], data: Any) -> _R:
        """The inverse of to_dict; raises ConfigError that names the key."""
        if not isinstance(data, dict):
            raise ConfigError(f"{cls.__name__}: expected an object, got {type(data).__name__}")
        hints = _hints(cls)
        names = [f.name for f in fields(cls)]  # type: ignore[arg-type]
        unknown, missing = sorted(set(data) - set(names)), sorted(set(names) - set(data))
        if unknown or missing:
            raise ConfigError(
                f"{cls.__name__}: unknown keys {unknown}, missing keys {missing}; accepted keys:"
                f" {names}"
            )
        return cls(
            **{name: _typed(f"{cls.__name__}.{name}", hints[name], data[name]) for name in names}
        )


_HINTS: dict[type[Record], dict[str, Any]] = {}


def _hints(record: type[Record]) -> dict[str, Any]:
    """The types of a record's fields; a library has thousands of records of few types."""
    if record not in _HINTS:
        _HINTS[record] = typing.get_type_hints(record)
    return _HINTS[record]


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_dict()
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    return value


def _typed(name: str, hint: Any, value: Any) -> Any:
    """Check a JSON value against a field's type and rebuild tuples and records."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple and isinstance(value, list):
        element_hints = (args[0],) * len(value) if args[-1] is Ellipsis else args
        if len(element_hints) == len(value):
            return tuple(_typed(name, h, v) for h, v in zip(element_hints, value, strict=True))
    elif origin is dict and isinstance(value, dict):
        return {str(k): _typed(f"{name}[{k}]", args[1], v) for k, v in value.items()}
    elif origin is types.UnionType:
        return (
            None
            if value is None
            else _typed(name, next(a for a in args if a is not type(None)), value)
        )
    elif isinstance(hint, type) and issubclass(hint, Record):
        return hint.from_dict(value)
    elif hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif isinstance(hint, type) and type(value) is hint:
        return value
    raise ConfigError(f"{name}: expected {getattr(hint, '__name__', hint)}, got {value!r:.60}")
