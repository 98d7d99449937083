"""`subpc tune`: search faster schedules for a model on this CPU, into a database that `compile
--tuning` reads."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from subpc.cli.options import (
    ARCH,
    DATABASE,
    MODEL,
    SHAPE,
    FileCommand,
    json_option,
    part_option,
    precision_option,
    threads_option,
    trust_pickle_option,
)
from subpc.cli.printing import complain, markup, show, show_json
from subpc.library.report import FLOATS
from subpc.passes.sparse_modes import SPARSE_MODES

if TYPE_CHECKING:
    from subpc.tuning.report import ShowProgress, TuneProgress

# Lines of progress for a log file come this often.
LOG_SECONDS = 10.0


@click.command("tune", cls=FileCommand)
@click.argument("model", type=MODEL)
@click.option(
    "--db", "database", required=True, type=DATABASE, help="Database to read, and to append to."
)
@click.option(
    "--budget",
    default="10m",
    show_default=True,
    metavar="TIME",
    help="How long to search: 90s, 10m, 1h.",
)
@click.option("--trials", type=click.IntRange(1), help="Stop after this many candidates, too.")
@click.option("--arch", type=ARCH, help="Architecture of a state dict, as for compile.")
@click.option("--shape", "shapes", type=SHAPE, multiple=True, help="Input shape.")
@part_option
@click.option("--target", default="llvm -mcpu=native", show_default=True, help="CPU to tune for.")
@click.option(
    "--sparse",
    type=click.Choice(SPARSE_MODES),
    default="auto",
    show_default=True,
    help="Block-sparse kernels, as for compile.",
)
@precision_option
@click.option(
    "--tracker", metavar="HOST:PORT", help="Measure on the machines of this TVM RPC tracker."
)
@click.option(
    "--device-key", metavar="KEY", help="Key under which the machines are registered there."
)
@trust_pickle_option
@threads_option
@json_option
def command(model: Path, database: Path, as_json: bool, **rest: Any) -> None:
    """Search faster schedules for MODEL's convolutions, inside the whole network, on pinned
    threads.

    Every measurement is appended to the database at once: after Ctrl-C, or any other end, the same
    command goes on where it was.

    \b
    Examples:
      subpc tune small.pt --db tune.jsonl
      subpc compile small.pt --tuning tune.jsonl -o model.so
    """
    from subpc.tuning.tune import parse_budget, tune

    options = {
        **rest,
        "shapes": list(rest["shapes"]) or None,
        "budget": parse_budget(rest["budget"]),
    }
    with _progress(quiet=as_json) as progress:
        report = tune(model, database=database, progress=progress, **options)
    if as_json:
        show_json({**report.to_dict(), "verdict": report.verdict})
        return
    show(report.verdict)
    facts = (
        f"{report.trials} candidates measured ({report.failures} failed), {report.known} known"
        f" before, {report.seconds:.0f} s"
    )
    show(
        f"{facts}; {report.dropped} layers' schedules were dropped, for they did not help in the"
        " whole network"
    )
    show(*(f"note: {note}" for note in report.notes))
    precision = "" if rest["precision"] == FLOATS else f" --precision {rest['precision']}"
    show(
        f"wrote {report.database}; use it: subpc compile {model}{precision} --tuning"
        f" {report.database}"
    )


@contextmanager
def _progress(*, quiet: bool) -> "Iterator[ShowProgress | None]":
    """A live line on a terminal, now and then a line in a log, nothing with --json."""
    if quiet:
        yield None
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.status import Status

        with Status("starting", console=Console(stderr=True)) as status:
            yield lambda now: status.update(markup(_line(now)))
    else:
        yield _Log()


class _Log:
    """ShowProgress lines for a file, one every few seconds."""

    def __init__(self) -> None:
        self._last = -LOG_SECONDS

    def __call__(self, now: "TuneProgress") -> None:
        import time

        if time.monotonic() - self._last >= LOG_SECONDS:
            self._last = time.monotonic()
            complain(_line(now))


def _line(now: "TuneProgress") -> str:
    minutes, seconds = divmod(int(now.seconds_left), 60)
    failed = f" ({now.failures} failed)" if now.failures else ""
    return (
        f"{now.what}: {minutes}:{seconds:02d} left, {now.done}/{now.layers} layers done,"
        f" {now.trials} candidates{failed}, {now.gain:.3f}x so far"
    )
