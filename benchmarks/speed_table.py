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
from race import ROOT, Results, cells, race, write_between
from torch import nn

from subpc.demo.random_networks import prune_uniform, seeded_model

RESULTS = ROOT / "benchmarks" / "results" / "speed_table.jsonl"
PAGES = (ROOT / "docs" / "performance.md", ROOT / "README.md")
BEGIN, END = (
    "<!-- speed table: benchmarks/speed_table.py --show --write -->",
    "<!-- end of speed table -->",
)
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


def pruned(row: Row) -> nn.Module:
    """The row's network."""
    model = seeded_model(row.network)
    if row.sparsity:
        pointwise = row.network.startswith("mobilenet")
        prune_uniform(
            model, n=row.n, sparsity=row.sparsity, pointwise_only=pointwise, layerwise=row.layerwise
        )
    return model


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
        goal = (
            ""
            if row.goal is None
            else f"{row.goal} {'reached' if entry['ratio'] >= row.goal else '**missed**'}"
        )
        lines.append(f"| {row.key} | {ms[0]} | {ms[1]} | {ms[2]} | {entry['ratio']:.2f} | {goal} |")
    return "\n".join(lines)


@click.command()
@click.option("--only", default="", help="measure rows whose name contains this")
@click.option("--fresh", is_flag=True, help="measure again what has been measured")
@click.option("--show", is_flag=True, help="print the table and measure nothing")
@click.option("--write", is_flag=True, help="put the table into the documents")
@click.option("--runs", default=60, show_default=True)
@click.option("--rounds", default=6, show_default=True)
def main(only: str, fresh: bool, show: bool, write: bool, runs: int, rounds: int) -> None:
    """Measure the rows that are missing, then print the table."""
    results = Results(RESULTS)
    for row in all_rows():
        if show or only not in row.key or (row.key in results.rows and not fresh):
            continue
        results.add(
            row.key,
            {"goal": row.goal, **race(pruned(row), (1, 3, 224, 224), runs=runs, rounds=rounds)},
        )
    click.echo(table(results.rows))
    if write:
        write_between(PAGES, BEGIN, END, table(results.rows))


if __name__ == "__main__":
    main()
