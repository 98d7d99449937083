"""What the data-free methods call as they go on."""

from collections.abc import Callable

# (what is done, parts done, parts in all)
Progress = Callable[[str, int, int], None]


def silent(stage: str, done: int, total: int) -> None:
    """No progress wanted."""
