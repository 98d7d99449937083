"""What the speed tables share: one model against its rivals, each engine alone in its process, and
a file of results by row."""

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

import subpc
from subpc.bench import bench
from subpc.errors import SubpcError

if TYPE_CHECKING:
    from torch import nn

Command = TypeVar("Command", bound=Callable[..., Any])
RIVALS = ["onnxruntime", "openvino"]
ROOT = Path(__file__).parents[1]


def time_model(
    model: "nn.Module",
    shape: Sequence[int],
    *,
    runs: int,
    rounds: int,
    rivals: Sequence[str] = RIVALS,
    threads: int | None = None,
    ours: Any = None,
    others: Mapping[str, Mapping[str, Any]] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Compile the model and time it beside its rivals: milliseconds by engine, the ratio to the
    fastest rival, and what to know of it.

    threads: of all engines; ours: what is compiled, where that is not what the rivals run; options:
    of subpc.compile; others: {name to show: options} of more libraries of ours.
    """
    entries = {
        "subpc": options,
        **{name: {**options, **more} for name, more in (others or {}).items()},
    }
    with tempfile.TemporaryDirectory() as folder:
        libraries = {name: Path(folder) / f"{index}.so" for index, name in enumerate(entries)}
        for name, library in libraries.items():
            source = model if ours is None else ours
            given = {"shapes": [tuple(shape)], "threads": threads, **entries[name]}
            subpc.compile(source, output=library, **given)
        report = bench.time_engines(
            libraries.pop("subpc"),
            rivals,
            libraries=libraries,
            model=model,
            threads=threads,
            runs=runs,
            rounds=rounds,
        )
    times = {e.engine: e.timing.p50 if e.timing else None for e in report.engines}
    versions = {e.engine: e.version for e in report.engines}
    disagree = [
        f"{e.engine} {e.failure or e.difference}"
        for e in report.engines[1:]
        if not report.agrees(e)
    ]
    rival = report.best_rival
    ratio = report.ratio(rival) if rival else None
    facts = {
        "cpu": report.cpu,
        "threads": report.threads,
        "runs": runs,
        "versions": versions,
        "headline": report.headline,
    }
    if ratio is None:
        raise SubpcError(
            f"no rival ran, so there is nothing to compare with: {'; '.join(disagree)}"
        )
    return {"ms": times, "ratio": ratio, "warning": report.warning, "disagree": disagree, **facts}


def table_options(page: str) -> Callable[[Command], Command]:
    """The options that all tables have; page: what --write writes into."""
    options = (
        click.option("--only", default="", help="measure rows whose name contains this"),
        click.option("--fresh", is_flag=True, help="measure again what has been measured"),
        click.option("--show", is_flag=True, help="print the table and measure nothing"),
        click.option("--write", is_flag=True, help=f"put the table into {page}"),
        click.option("--runs", default=60, show_default=True),
        click.option("--rounds", default=6, show_default=True),
    )

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


class Results:
    """Results by row, one JSON object a line; a later line replaces an earlier one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.rows: dict[str, dict[str, Any]] = {
            entry["row"]: entry for entry in map(json.loads, lines)
        }

    def wanted(self, keys: Iterable[str], *, only: str, fresh: bool, show: bool) -> Iterator[str]:
        """The rows that are to be measured."""
        for key in keys:
            if not show and only in key and (fresh or key not in self.rows):
                yield key

    def add(self, key: str, entry: dict[str, Any]) -> None:
        """Print a row, and keep it unless other programs kept the cores busy."""
        rounded = {name: round(ms, 2) if ms else ms for name, ms in entry["ms"].items()}
        click.echo(
            f"{key}: {rounded} ratio {entry['ratio']:.2f} {entry['warning']}"
            f" {' '.join(entry['disagree'])}"
        )
        if not entry["warning"]:
            self.rows[key] = {"row": key, **entry}
            self._path.parent.mkdir(exist_ok=True)
            with self._path.open("a") as file:
                file.write(json.dumps(self.rows[key]) + "\n")


def cells(entry: dict[str, Any], engines: Sequence[str] = ("subpc", *RIVALS)) -> list[str]:
    """Milliseconds of each engine, for a table."""
    return [f"{entry['ms'][e]:.2f}" if entry["ms"].get(e) else "failed" for e in engines]


def judged(ratio: float, goal: float | None) -> str:
    """A goal, and whether it was reached; empty where there is none."""
    return "" if goal is None else f"{goal} {'reached' if ratio >= goal else '**missed**'}"


def write_between(pages: Sequence[Path], begin: str, end: str, text: str) -> None:
    """Put a table between its markers in documents."""
    for page in pages:
        before, rest = page.read_text().split(begin)
        _, after = rest.split(end)
        page.write_text(f"{before}{begin}\n{text}\n{end}{after}")
