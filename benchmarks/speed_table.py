"""The speed table of docs/performance.md: five networks, dense and 1xN-sparse, against ONNX Runtime and OpenVINO.

    python benchmarks/speed_table.py                  # everything, about 25 minutes on two cores
    python benchmarks/speed_table.py --only resnet50  # some rows
    python benchmarks/speed_table.py --show           # the table from what has been measured
    python benchmarks/speed_table.py --show --write   # the same, put into docs/performance.md and README.md

Every row is one `subpc bench`: each engine alone in its own process, the processes taking turns, the same pruned model for all.
A row that is in the results file is not measured again; --fresh starts over. Rows with busy cores are marked and not kept.
"""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

import subpc
from subpc import bench
from subpc.synthetic import prune_uniform, seeded_model

RIVALS = ["onnxruntime", "openvino"]
ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "speed_table.jsonl"
PAGES = (ROOT / "docs" / "performance.md", ROOT / "README.md")
BEGIN, END = "<!-- speed table: benchmarks/speed_table.py --show --write -->", "<!-- end of speed table -->"
SPARSITIES = (0.0, 0.5, 0.75, 0.9)
GOALS = {
    "resnet50": (1.0, 1.8, 3.2, 6.0),
    "resnet18": (1.0, 1.7, 2.8, 4.5),
    "vgg16_bn": (1.0, 1.8, 3.2, 6.0),
    "densenet121": (1.0, 1.5, 2.2, 3.0),
    "mobilenet_v2": (1.0, 1.3, 1.6, 2.0),
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measurement: a network and how it is pruned."""

    network: str
    sparsity: float
    n: int = 16
    layerwise: bool = False

    @property
    def key(self) -> str:
        pattern = f"N={self.n}{' layer-wise' if self.layerwise else ''}"
        return f"{self.network} {self.sparsity:.0%}" + (f" {pattern}" if self.sparsity else "")

    @property
    def goal(self) -> float | None:
        return GOALS[self.network][SPARSITIES.index(self.sparsity)] if self.n == 16 and not self.layerwise else None


def all_rows() -> list[Row]:
    """The table's rows: the grid, then other N and patterns that are not uniform."""
    grid = [Row(network=name, sparsity=sparsity) for name in GOALS for sparsity in SPARSITIES]
    return [
        *grid,
        *(Row(network="resnet50", sparsity=0.75, n=n) for n in (4, 8, 32)),
        Row(network="resnet50", sparsity=0.75, layerwise=True),
    ]


def measure(row: Row, runs: int, rounds: int) -> dict[str, Any]:
    """Compile the row's network and time it beside its rivals."""
    model = seeded_model(row.network)
    if row.sparsity:
        pointwise = row.network.startswith("mobilenet")
        prune_uniform(model, n=row.n, sparsity=row.sparsity, pointwise_only=pointwise, layerwise=row.layerwise)
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "model.so"
        subpc.compile(model, shapes=[(1, 3, 224, 224)], output=library)
        report = bench.compare(library, RIVALS, model=model, runs=runs, rounds=rounds)
    times = {e.engine: e.timing.p50 if e.timing else None for e in report.engines}
    versions = {e.engine: e.version for e in report.engines}
    disagree = [f"{e.engine} {e.failure or e.difference}" for e in report.engines[1:] if not e.agrees]
    rival = report.best_rival
    ratio = report.ratio(rival) if rival else None
    facts = {"cpu": report.cpu, "threads": report.threads, "runs": runs, "versions": versions, "headline": report.headline}
    return {"row": row.key, "goal": row.goal, "ms": times, "ratio": ratio, "warning": report.warning, "disagree": disagree, **facts}


def read_results() -> dict[str, dict[str, Any]]:
    """Results so far by row; a later line replaces an earlier one."""
    if not RESULTS.exists():
        return {}
    return {entry["row"]: entry for entry in map(json.loads, RESULTS.read_text().splitlines())}


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown; a goal that was missed is told as such."""
    lines = ["| network | subpc ms | ONNX Runtime ms | OpenVINO ms | ratio | goal |", "|---|---|---|---|---|---|"]
    for row in all_rows():
        entry = results.get(row.key)
        if entry is None:
            continue
        ms = [f"{entry['ms'][e]:.2f}" if entry["ms"].get(e) else "failed" for e in ("subpc", *RIVALS)]
        goal = "" if row.goal is None else f"{row.goal} {'reached' if entry['ratio'] >= row.goal else '**missed**'}"
        lines.append(f"| {row.key} | {ms[0]} | {ms[1]} | {ms[2]} | {entry['ratio']:.2f} | {goal} |")
    return "\n".join(lines)


def write_pages(text: str) -> None:
    """Put the table between its markers in the documents."""
    for page in PAGES:
        before, rest = page.read_text().split(BEGIN)
        _, after = rest.split(END)
        page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


@click.command()
@click.option("--only", default="", help="measure rows whose name contains this")
@click.option("--fresh", is_flag=True, help="measure again what has been measured")
@click.option("--show", is_flag=True, help="print the table and measure nothing")
@click.option("--write", is_flag=True, help="put the table into the documents")
@click.option("--runs", default=60, show_default=True)
@click.option("--rounds", default=6, show_default=True)
def main(only: str, fresh: bool, show: bool, write: bool, runs: int, rounds: int) -> None:
    """Measure the rows that are missing, then print the table."""
    results = read_results()
    RESULTS.parent.mkdir(exist_ok=True)
    for row in all_rows():
        if show or only not in row.key or (row.key in results and not fresh):
            continue
        entry = measure(row, runs, rounds)
        rounded = {name: round(ms, 2) if ms else ms for name, ms in entry["ms"].items()}
        click.echo(f"{row.key}: {rounded} ratio {entry['ratio']:.2f} {entry['warning']} {' '.join(entry['disagree'])}")
        if not entry["warning"]:
            results[row.key] = entry
            with RESULTS.open("a") as file:
                file.write(json.dumps(entry) + "\n")
    click.echo(table(results))
    if write:
        write_pages(table(results))


if __name__ == "__main__":
    main()
