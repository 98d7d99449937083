"""What the configurations of the data-free methods share: JSON there and back, and checks of single
values.

Nothing here needs PyTorch: the command line reads the settings' names and defaults.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from subpc.errors import ConfigError
from subpc.records import Record

C = TypeVar("C", bound="Config")

# Widths of quantized weights.
MIN_BITS, MAX_BITS = 2, 8
# What a network is followed with where no images are given.
INPUTS = ("matched", "random", "normal")
# Among the layers to keep dense: those that the SUBP paper keeps dense (see network/keep_dense.py).
PAPER = "paper"


@dataclass(frozen=True, kw_only=True)
class Config(Record):
    """Base of the configurations of the data-free methods; each has a default for every setting."""

    @classmethod
    def from_dict(cls: type[C], data: Any) -> C:
        """The configuration with these values, defaults where a key is missing; ConfigError for
        unknown keys and other types."""
        return super().from_dict({**cls().to_dict(), **data} if isinstance(data, dict) else data)


def check_range(name: str, value: float, low: float, high: float) -> None:
    """ConfigError unless low <= value <= high."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ConfigError(f"{name} is {value!r}; accepted: numbers from {low} to {high}.")


def check_choice(name: str, value: Any, accepted: Sequence[str]) -> None:
    """ConfigError unless the value is one of `accepted`."""
    if value not in accepted:
        raise ConfigError(f"{name} is {value!r}; accepted: {', '.join(accepted)}.")


def check_feedback(feedback: bool | None, scales: str) -> None:
    """ConfigError unless it is true, false, or None for what suits, and goes with the scales."""
    if feedback is not None and not isinstance(feedback, bool):
        raise ConfigError(f"feedback is {feedback!r}; accepted: true, false.")
    if feedback and scales != "search":
        raise ConfigError(
            "feedback needs scales search, which is what was seen with it to be of use."
        )


def with_feedback(feedback: bool | None, scales: str, *, images: bool) -> bool:
    """Whether rounding errors are made good by the weights that follow: where it is known how
    inputs go together, which `images` tell, unless the user decided."""
    return images and scales == "search" if feedback is None else feedback


def check_bits(bits: int, name: str = "bits") -> None:
    """ConfigError unless `bits` is a width that weights can be quantized to."""
    if not isinstance(bits, int) or isinstance(bits, bool) or not MIN_BITS <= bits <= MAX_BITS:
        raise ConfigError(
            f"{name} is {bits!r}; accepted: whole numbers from {MIN_BITS} to {MAX_BITS}."
        )
