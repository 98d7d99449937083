"""`subpc bench`: times beside other engines."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from subpc.cli.options import (
    ARCH,
    LIBRARY,
    MODEL,
    FileCommand,
    calibration_option,
    interpolation_option,
    json_option,
    library_shape_option,
    mean_option,
    part_option,
    std_option,
    threads_option,
    trust_pickle_option,
)
from subpc.images.prepare import Preparation

if TYPE_CHECKING:
    from rich.table import Table

    from subpc.bench.report import BenchReport


@click.command("bench", cls=FileCommand)
@click.argument("library", type=LIBRARY)
@click.option(
    "--compare",
    default="",
    metavar="ENGINES",
    help="Of onnxruntime, openvino, torch, torch-compile, onnxruntime-int8, openvino-int8, with"
    " commas; the last two quantize the model by themselves.",
)
@click.option(
    "--model", type=MODEL, help="The model file that LIBRARY was compiled from, for the others."
)
@click.option("--arch", type=ARCH, help="Architecture of --model, as for compile.")
@part_option
@trust_pickle_option
@library_shape_option
@click.option(
    "--runs",
    type=click.IntRange(1),
    default=40,
    show_default=True,
    help="Timed calls of each engine.",
)
@click.option(
    "--warmup",
    type=click.IntRange(0),
    default=10,
    show_default=True,
    help="Calls before timing, in each round.",
)
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=4,
    show_default=True,
    help="How often the engines take turns.",
)
@calibration_option
@mean_option
@std_option
@interpolation_option
@threads_option
@json_option
def command(
    library: Path,
    compare: str,
    model: Path | None,
    arch: str | None,
    trust_pickle: bool,
    part: str | None,
    **rest: Any,
) -> None:
    """Time LIBRARY, alone or beside other engines: same model, input and threads, each engine alone
    in its own process.

    \b
    Examples:
      subpc bench model.so
      subpc bench model.so --compare onnxruntime,openvino --model small.pt
    """
    from subpc.bench import bench
    from subpc.cli.printing import show_json
    from subpc.cli.progress import progress_line

    as_json = rest.pop("as_json")
    how = {name: rest.pop(name) for name in ("mean", "std", "interpolation")}
    rivals = [name.strip() for name in compare.split(",") if name.strip()]
    shapes = rest.pop("shapes") or None
    with progress_line(quiet=as_json) as progress:
        source = (
            source_of(model, arch, trust_pickle, part) if model is not None and rivals else None
        )
        report = bench.time_engines(
            library,
            rivals,
            model=source,
            shapes=shapes,
            preparation=Preparation(**how),
            progress=progress,
            **rest,
        )
    if as_json:
        show_json(as_dict(report))
    else:
        print_report(report)
    if any(engine.failure for engine in report.engines):
        click.get_current_context().exit(1)


def source_of(model: Path, arch: str | None, trust_pickle: bool, part: str | None = None) -> Any:
    """What other engines run: the file itself if it is ONNX, else the PyTorch model in it."""
    from subpc.frontend.files.load_file import load_torch_file
    from subpc.frontend.parts import check_no_part
    from subpc.model_files import check_file

    if model.suffix == ".onnx":
        check_no_part(model, part)
        return model

    check_file(model)
    return load_torch_file(model, arch=arch, trust_pickle=trust_pickle, part=part).model


def as_dict(report: "BenchReport") -> dict[str, Any]:
    """The report with its ratios, for --json."""
    data = report.to_dict()
    for entry, engine in zip(data["engines"], report.engines, strict=True):
        entry["ratio"] = report.ratio(engine)
        entry["per_second"] = engine.timing.per_second if engine.timing else None
    return {**data, "verdict": report.verdict, "warning": report.warning}


def print_report(report: "BenchReport") -> None:
    """Headline, table and verdict."""
    from subpc.cli.printing import flat, show

    shapes = ", ".join("x".join(map(str, shape)) for shape in report.shapes)
    conditions = (
        f"{report.cpu}, {report.threads} threads, input {shapes}, {report.runs} runs in"
        f" {report.rounds} rounds"
    )
    show(report.headline, conditions, _table(report))
    show(*(f"{e.engine} did not run: {flat(e.failure)}" for e in report.engines if e.failure))
    if len(report.engines) > 1:
        show(report.verdict)
    if report.warning:
        show(f"warning: {report.warning}")


def _table(report: "BenchReport") -> "Table":
    from subpc.cli.tables import new_table

    columns = (
        "engine",
        "version",
        "p50 ms",
        "p90 ms",
        "p99 ms",
        "per s",
        "first answer ms",
        "peak MB",
        "time / subpc",
        "output",
    )
    table = new_table(*columns)
    for engine in report.engines:
        if engine.timing is None:
            table.add_row(engine.engine, engine.version, *["-"] * (len(columns) - 2))
            continue
        t, ratio = engine.timing, report.ratio(engine)
        times = [f"{t.p50:.2f}", f"{t.p90:.2f}", f"{t.p99:.2f}", f"{t.per_second:.1f}"]
        other = [
            f"{engine.first_answer_ms:.0f}",
            f"{engine.peak_mb:.0f}",
            f"{ratio:.2f}x" if ratio else "-",
            report.answer(engine),
        ]
        table.add_row(engine.engine, engine.version, *times, *other)
    return table
