"""What the speed tables share: one model against its rivals, each engine alone in its process, and
a file of results by row."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import subpc
from subpc.bench import bench
from subpc.errors import SubpcError

if TYPE_CHECKING:
    from torch import nn

RIVALS = ["onnxruntime", "openvino"]
ROOT = Path(__file__).parents[1]


def race(model: "nn.Module", shape: Sequence[int], *, runs: int, rounds: int) -> dict[str, Any]:
    """Compile the model and time it beside its rivals: milliseconds by engine, the ratio to the
    faster rival, and what to know of it."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "model.so"
        subpc.compile(model, shapes=[tuple(shape)], output=library)
        report = bench.time_engines(library, RIVALS, model=model, runs=runs, rounds=rounds)
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


class Results:
    """Results by row, one JSON object a line; a later line replaces an earlier one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.rows: dict[str, dict[str, Any]] = {
            entry["row"]: entry for entry in map(json.loads, lines)
        }

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


def cells(entry: dict[str, Any]) -> list[str]:
    """Milliseconds of subpc and its rivals, for a table."""
    return [f"{entry['ms'][e]:.2f}" if entry["ms"].get(e) else "failed" for e in ("subpc", *RIVALS)]


def write_between(pages: Sequence[Path], begin: str, end: str, text: str) -> None:
    """Put a table between its markers in documents."""
    for page in pages:
        before, rest = page.read_text().split(begin)
        _, after = rest.split(end)
        page.write_text(f"{before}{begin}\n{text}\n{end}{after}")
