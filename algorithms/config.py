"""What the configurations of the data-free methods share: JSON there and back, unknown keys refused."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

from subpc.errors import ConfigError

T = TypeVar("T", bound="Config")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Base of the configurations."""

    def to_dict(self) -> dict[str, Any]:
        """Values that JSON takes."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls: type[T], data: Mapping[str, Any]) -> T:
        """The configuration with these values; ConfigError for keys that it does not have."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(data) - known)
        if unknown:
            raise ConfigError(f"{cls.__name__} has no {', '.join(unknown)}; it has {', '.join(sorted(known))}.")
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in data.items()})


def check_range(name: str, value: float, low: float, high: float) -> None:
    """ConfigError unless low <= value <= high."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ConfigError(f"{name} is {value!r}; accepted: numbers from {low} to {high}.")


def check_choice(name: str, value: Any, accepted: Sequence[str]) -> None:
    """ConfigError unless the value is one of `accepted`."""
    if value not in accepted:
        raise ConfigError(f"{name} is {value!r}; accepted: {', '.join(accepted)}.")
