"""The speed table of docs/performance.md: five networks, dense and 1xN-sparse, against ONNX Runtime
and OpenVINO.

    python benchmarks/speed_table.py                  # everything, about 25 minutes on two cores
    python benchmarks/speed_table.py --only resnet50  # some rows
    python benchmarks/speed_table.py --show           # the table from what has been measured
    # the same, put into docs/performance.md and README.md
    python benchmarks/speed_table.py --show --write

Every row is one `subpc bench`: each engine alone in its own process, the processes taking turns,
the same pruned model for all. A row that is in the results file is not measured again; --fresh
starts over. Rows with busy cores are marked and not kept.
"""

from dataclasses import dataclass
from typing import Any

import click
from against_engines import ROOT, Results, cells, judged, table_options, time_model, write_between
from pruned_rows import SPARSITIES, PrunedRow

RESULTS = ROOT / "benchmarks" / "results" / "speed_table.jsonl"
PAGES = (ROOT / "docs" / "performance.md", ROOT / "README.md")
BEGIN, END = (
    "<!-- speed table: benchmarks/speed_table.py --show --write -->",
    "<!-- end of speed table -->",
)
GOALS = {
    "resnet50": (1.0, 1.8, 3.2, 6.0),
    "resnet18": (1.0, 1.7, 2.8, 4.5),
    "vgg16_bn": (1.0, 1.8, 3.2, 6.0),
    "densenet121": (1.0, 1.5, 2.2, 3.0),
    "mobilenet_v2": (1.0, 1.3, 1.6, 2.0),
}


@dataclass(frozen=True, kw_only=True)
class Row(PrunedRow):
    """One measurement."""

    @property
    def goal(self) -> float | None:
        """The ratio that is wanted, for rows of the grid."""
        return (
            GOALS[self.network][SPARSITIES.index(self.sparsity)]
            if self.n == 16 and not self.layerwise
            else None
        )


def all_rows() -> list[Row]:
    """The table's rows: the grid, then other N and patterns that are not uniform."""
    grid = [Row(network=name, sparsity=sparsity) for name in GOALS for sparsity in SPARSITIES]
    return [
        *grid,
        *(Row(network="resnet50", sparsity=0.75, n=n) for n in (4, 8, 32)),
        Row(network="resnet50", sparsity=0.75, layerwise=True),
    ]


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown; a goal that was missed is told as such."""
    lines = [
        "| network | subpc ms | ONNX Runtime ms | OpenVINO ms | ratio | goal |",
        "|---|---|---|---|---|---|",
    ]
    for row in all_rows():
        entry = results.get(row.key)
        if entry is None:
            continue
        ms = cells(entry)
        goal = judged(entry["ratio"], row.goal)
        lines.append(f"| {row.key} | {ms[0]} | {ms[1]} | {ms[2]} | {entry['ratio']:.2f} | {goal} |")
    return "\n".join(lines)


@click.command()
@table_options("docs/performance.md and README.md")
def main(only: str, fresh: bool, show: bool, write: bool, runs: int, rounds: int) -> None:
    """Measure the rows that are missing, then print the table."""
    results = Results(RESULTS)
    rows = {row.key: row for row in all_rows()}
    for key in results.wanted(rows, only=only, fresh=fresh, show=show):
        timed = time_model(rows[key].model(), (1, 3, 224, 224), runs=runs, rounds=rounds)
        results.add(key, {"goal": rows[key].goal, **timed})
    click.echo(table(results.rows))
    if write:
        write_between(PAGES, BEGIN, END, table(results.rows))


if __name__ == "__main__":
    main()
