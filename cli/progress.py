"""A progress bar on stderr where a command waits; nothing when stderr is not a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from subpc.cli.printing import markup


@contextmanager
def progress_line(*, quiet: bool = False) -> Iterator[Callable[[str, int, int], None]]:
    """Gives a function to call with (what is being done, how many parts are done, how many there
    are)."""
    if quiet or not sys.stderr.isatty():
        yield lambda stage, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=None)
        yield lambda stage, done, total: bar.update(
            task, description=markup(stage), completed=done, total=total or None
        )
