"""The one way in which commands print: names of others cannot reach the terminal as escape
sequences, markup or pages of text."""

import json
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from subpc.text import LONGEST_WORD, line, printable, shortened

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

# Files and pipes get whole names.
_WIDE = 250
# An error of ours has two lines at most; the rest would be somebody else's.
_MOST_LINES = 3
_MESSAGES = ("error:", "warning:", "note:")


class OutputError(Exception):
    """Standard output cannot be written; `reason` says why."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error.strerror or str(error))
        # The reader has closed the pipe, as `| head` does: that needs no message.
        self.unread = isinstance(error, BrokenPipeError)


def show(*parts: "Table | str") -> None:
    """Print tables and lines. Lines are printed as they are: wrapped ones cannot be searched
    for."""
    for part in parts:
        _write(line(part) if isinstance(part, str) else _drawn(part))


def show_json(data: dict[str, Any]) -> None:
    """Print one JSON object; JSON has escapes of its own, so that every name is exact."""
    _write(json.dumps(data, indent=2))


def complain(text: str) -> None:
    """Print an error or a note on standard error, which may be closed."""
    first, *others = map(line, text.split("\n"))
    # A name may hold a line break and what looks like a message of its own.
    others = [
        f"  {other}" if other.startswith(_MESSAGES) else other for other in others[:_MOST_LINES]
    ]
    with suppress(OSError, ValueError):
        click.echo("\n".join([first, *others]), err=True)


def flat(text: str) -> str:
    """Two lines of an error as one, for a place in a line."""
    return " ".join(text.split("\n"))


def cell(value: str) -> "Text":
    """A table's cell or a bar's words: without markup."""
    from rich.text import Text

    return Text(printable(shortened(value, LONGEST_WORD)))


def markup(value: str) -> str:
    """The same where rich takes nothing but text with markup."""
    from rich.markup import escape

    return escape(printable(shortened(value, LONGEST_WORD)))


def _drawn(table: "Table") -> str:
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDE
    with console.capture() as capture:
        console.print(table)
    return capture.get().removesuffix("\n")


def _write(text: str) -> None:
    if sys.stdout is None:  # closed by whoever started this
        return
    try:
        click.echo(text)
    except OSError as error:
        raise OutputError(error) from error
