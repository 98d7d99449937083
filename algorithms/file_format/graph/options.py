"""What an operator's options may be. A network from an untrusted file is checked with these before
any of it runs."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# An option that is wrong makes its check raise ValueError with what is accepted.
Check = Callable[[Any], None]
MAX_SIZE = 1 << 16
_MAX_ITEMS = 16


def _refuse(what: str) -> ValueError:
    return ValueError(f"{what} accepted")


def whole(low: int, high: int = MAX_SIZE) -> Check:
    """A whole number from low to high."""

    def check(value: Any) -> None:
        if type(value) is not int or not low <= value <= high:
            raise _refuse(f"a whole number from {low} to {high} is")

    return check


def number(value: Any) -> None:
    """A finite number."""
    if type(value) not in (int, float) or not math.isfinite(value):
        raise _refuse("a finite number is")


def bound(value: Any) -> None:
    """A number, or None for no bound."""
    if value is not None:
        number(value)


def switch(value: Any) -> None:
    """True or False."""
    if type(value) is not bool:
        raise _refuse("true or false is")


def one_of(*accepted: str) -> Check:
    """One of the words."""

    def check(value: Any) -> None:
        if type(value) is not str or value not in accepted:
            raise _refuse(f"{', '.join(accepted)} are")

    return check


def wholes(
    low: int, high: int = MAX_SIZE, *, counts: Sequence[int] = range(1, _MAX_ITEMS + 1)
) -> Check:
    """A list of whole numbers from low to high, as many as one of `counts`."""
    item = whole(low, high)

    def check(value: Any) -> None:
        if type(value) is not list or len(value) not in counts:
            raise _refuse(f"a list of {' or '.join(map(str, counts[:4]))} whole numbers is")
        for entry in value:
            item(entry)

    return check


def floats(*counts: int) -> Check:
    """A list of positive numbers of at most 64, as many as one of `counts`."""

    def check(value: Any) -> None:
        if type(value) is not list or len(value) not in counts:
            raise _refuse(f"a list of {' or '.join(map(str, counts))} numbers is")
        if not all(type(entry) in (int, float) and 0 < entry <= 64 for entry in value):
            raise _refuse("numbers above 0, at most 64, are")

    return check


def optional(check: Check) -> Check:
    """None, or what `check` takes."""

    def checked(value: Any) -> None:
        if value is not None:
            check(value)

    return checked


def check_options(options: Mapping[str, Any], checks: Mapping[str, Check]) -> None:
    """ValueError that names the option unless `options` has exactly the names of `checks`, with
    values that they take."""
    if set(options) != set(checks):
        raise ValueError(
            f"the options {', '.join(checks) or 'none'} are accepted, not"
            f" {', '.join(map(repr, options))[:80] or 'none'}"
        )
    for name, value in options.items():
        try:
            checks[name](value)
        except ValueError as error:
            raise ValueError(f"{name} is {value!r:.40}; {error}") from None
