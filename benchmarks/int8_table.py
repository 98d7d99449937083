"""The tables of docs/performance.md about whole numbers: int8 networks, dense and 1xN-sparse,
against OpenVINO with the same network quantized by NNCF.

    python benchmarks/int8_table.py                      # everything, about an hour on two cores
    python benchmarks/int8_table.py --only "resnet50 75%"           # some rows
    python benchmarks/int8_table.py --only haswell                  # on an older CPU's instructions
    python benchmarks/int8_table.py --tuning tune.jsonl --only resnet50     # tuned beside untuned
    python benchmarks/int8_table.py --show --write       # what was measured, put into the documents

Every row is one `subpc bench`: each engine alone in its own process, the processes taking turns,
two threads unless the row says one. Milliseconds are those of an image, in batches too. The rows of
older CPUs run code for those CPUs here, and hold OpenVINO to the same instructions by
ONEDNN_MAX_CPU_ISA. A row that is in the results file is not measured again; --fresh starts over.
Rows with busy cores are marked and not kept.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
from against_engines import ROOT, Results, cells, judged, table_options, time_model, write_between
from dense_table import network
from pruned_rows import SPARSITIES, PrunedRow
from torch import nn

from subpc import DfmpcConfig, compress_file
from subpc.errors import SubpcError

RESULTS = ROOT / "benchmarks" / "results" / "int8_table.jsonl"
DOCUMENT, README = ROOT / "docs" / "performance.md", ROOT / "README.md"
BEGIN, END = (
    "<!-- int8 table: benchmarks/int8_table.py --show --write -->",
    "<!-- end of int8 table -->",
)
OLDER_BEGIN, OLDER_END = (
    "<!-- int8 table of older CPUs: benchmarks/int8_table.py --show --write -->",
    "<!-- end of int8 table of older CPUs -->",
)
THREADS = 2
FLOAT, CODES = "float32", "8 bits"
TUNED = "subpc tuned"
GOALS = {
    "resnet50": (1.0, 1.6, 2.6, 4.0),
    "resnet18": (1.0, 1.6, 2.5, 3.8),
    "vgg16_bn": (1.0, 1.7, 2.8, 4.0),
    "densenet121": (1.3, 2.2, 3.2, 4.5),
    "mobilenet_v2": (1.0, 1.2, 1.5, 1.8),
}
# A detector, for 320x320 images; it needs the package ultralytics.
DETECTOR = "ultralytics:yolov8n"
# (weights, sparsity): the ratio that is wanted with skylake-avx512, and with haswell.
OLDER_GOALS = {
    (FLOAT, 0.0): (1.05, 1.0),
    (CODES, 0.0): (1.0, 1.0),
    ("6 bits", 0.0): (1.25, 1.2),
    ("2/6 bits", 0.0): (1.4, 1.35),
    (CODES, 0.75): (2.2, 2.2),
    ("6 bits", 0.75): (2.6, 2.5),
}
# What OpenVINO calls the instructions of these CPUs.
OLDER = {"skylake-avx512": "AVX512_CORE", "haswell": "AVX2"}


@dataclass(frozen=True, kw_only=True)
class Row(PrunedRow):
    """One measurement. cpu: an older one to compile for; weights: float32, 8 bits, or those of
    DF-MPC."""

    batch: int = 1
    threads: int = THREADS
    cpu: str = ""
    weights: str = CODES

    @property
    def key(self) -> str:
        facts = [
            f"batch {self.batch}" if self.batch > 1 else "",
            f"{self.threads} thread" if self.threads != THREADS else "",
            self.weights if self.cpu else "",
            self.cpu,
        ]
        return ", ".join([super().key, *filter(None, facts)])

    @property
    def goal(self) -> float | None:
        """The ratio that is wanted."""
        if self.cpu:
            return OLDER_GOALS[self.weights, self.sparsity][list(OLDER).index(self.cpu)]
        plain = (self.batch, self.threads) == (1, THREADS)
        return GOALS[self.network][SPARSITIES.index(self.sparsity)] if plain else None

    @property
    def rival(self) -> str:
        """The engine that it is compared with, as far as the table tells."""
        return "openvino" if self.weights == FLOAT else "openvino-int8"

    @property
    def precision(self) -> str:
        """What its library computes in."""
        return FLOAT if self.weights == FLOAT else "int8"


@dataclass(frozen=True, kw_only=True)
class DetectorRow(Row):
    """A network of another library, for larger images."""

    side: int = 320

    @property
    def goal(self) -> float | None:
        return None

    def dense(self) -> nn.Module:
        return network(self.network)[0]


def all_rows() -> list[Row]:
    """The grid; batches, one thread and the detector; older CPUs."""
    return [
        *(Row(network=name, sparsity=s) for name in GOALS for s in SPARSITIES),
        *(Row(network="resnet50", sparsity=s, batch=b) for b in (8, 16) for s in SPARSITIES),
        *(Row(network="resnet50", sparsity=s, threads=1) for s in SPARSITIES),
        *(DetectorRow(network=DETECTOR, sparsity=s) for s in SPARSITIES),
        *(
            Row(network="resnet50", sparsity=s, cpu=cpu, weights=weights)
            for cpu in OLDER
            for weights, s in OLDER_GOALS
        ),
    ]


def measure(row: Row, tuning: str | None, *, runs: int, rounds: int) -> dict[str, Any]:
    """Milliseconds of one image by engine, the ratio, and what to know of it."""
    side = 320 if isinstance(row, DetectorRow) else 224
    options = {"target": f"llvm -mcpu={row.cpu or 'native'}", "precision": row.precision}
    model = row.model()
    with tempfile.TemporaryDirectory() as folder, held_to(OLDER.get(row.cpu)):
        timed = time_model(
            model,
            (row.batch, 3, side, side),
            runs=runs,
            rounds=rounds,
            rivals=[row.rival],
            threads=row.threads,
            ours=compressed(model, row, Path(folder)),
            others={TUNED: {"tuning": tuning}} if tuning else None,
            tuning="off",
            **options,
        )
    ms = {engine: time and time / row.batch for engine, time in timed["ms"].items()}
    return {**timed, "ms": ms, "goal": row.goal}


def compressed(model: nn.Module, row: Row, folder: Path) -> Path | None:
    """The network with codes of fewer bits, as a file of DF-MPC; None where its weights are 8 bits
    or float32."""
    if row.weights in (FLOAT, CODES):
        return None
    low, _, high = row.weights.removesuffix(" bits").partition("/")
    config = DfmpcConfig(low_bits=int(low), high_bits=int(high or low))
    torch.save(model.state_dict(), folder / "weights.pth")
    file = folder / "compressed.safetensors"
    compress_file(folder / "weights.pth", config, file, arch=f"torchvision:{row.network}")
    return file


@contextmanager
def held_to(isa: str | None) -> Iterator[None]:
    """Let OpenVINO's processes that start now use no newer instructions than these."""
    if isa is not None:
        os.environ["ONEDNN_MAX_CPU_ISA"] = isa
    try:
        yield
    finally:
        os.environ.pop("ONEDNN_MAX_CPU_ISA", None)


def table(results: dict[str, dict[str, Any]], *, older: bool) -> str:
    """Markdown; a goal that was missed is told as such."""
    lines = [
        "| network | subpc ms | tuned ms | OpenVINO ms | ratio | goal |",
        "|---|---|---|---|---|---|",
    ]
    for row in all_rows():
        entry = results.get(row.key)
        if entry is None or bool(row.cpu) != older:
            continue
        ours, rival = cells(entry, ("subpc", row.rival))
        tuned = cells(entry, (TUNED,))[0] if TUNED in entry["ms"] else ""
        ratio = f"{entry['ratio']:.2f}"
        goal = judged(entry["ratio"], row.goal)
        lines.append(f"| {row.key} | {ours} | {tuned} | {rival} | {ratio} | {goal} |")
    return "\n".join(lines)


@click.command()
@click.option("--tuning", help="a database of `subpc tune`, or auto: measure tuned code as well")
@table_options("docs/performance.md and README.md")
def main(
    tuning: str | None, only: str, fresh: bool, show: bool, write: bool, runs: int, rounds: int
) -> None:
    """Measure the rows that are missing, then print the tables."""
    results = Results(RESULTS)
    rows = {row.key: row for row in all_rows()}
    for key in results.wanted(rows, only=only, fresh=fresh, show=show):
        try:
            results.add(key, measure(rows[key], tuning, runs=runs, rounds=rounds))
        except (ImportError, SubpcError) as error:
            click.echo(f"{key}: left out, {error}")
    main_table, older_table = (table(results.rows, older=older) for older in (False, True))
    click.echo(f"{main_table}\n\n{older_table}")
    if write:
        write_between([DOCUMENT, README], BEGIN, END, main_table)
        write_between([DOCUMENT], OLDER_BEGIN, OLDER_END, older_table)


if __name__ == "__main__":
    main()
