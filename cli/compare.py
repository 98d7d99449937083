"""`subpc compare`: two models, side by side."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from subpc.cli.options import (
    ARCH,
    DATA,
    MODEL,
    SHAPE,
    FileCommand,
    json_option,
    mean_option,
    part_option,
    std_option,
    threads_option,
)
from subpc.cli.printing import flat, show, show_json
from subpc.cli.tables import new_table

if TYPE_CHECKING:
    from rich.table import Table

    from subpc.comparison.report import ComparisonReport, SideInfo


@click.command("compare", cls=FileCommand)
@click.argument("a", type=MODEL)
@click.argument("b", type=MODEL)
@click.option(
    "--data", type=DATA, help="A folder of images, or a .npy file. [default: random numbers]"
)
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=256,
    show_default=True,
    help="Use at most so many samples.",
)
@click.option("--arch", type=ARCH, help="Architecture of state dicts, as for compile.")
@part_option
@click.option(
    "--shape", "shapes", type=SHAPE, multiple=True, help="Input shape, where neither model says it."
)
@mean_option
@std_option
@click.option(
    "--size", type=int, default=None, help="Side of the centre crop. [default: the models' input]"
)
@click.option(
    "--resize",
    type=int,
    default=None,
    help="Shorter side before the crop. [default: size * 256 / 224]",
)
@click.option(
    "--runs",
    type=click.IntRange(0),
    default=40,
    show_default=True,
    help="Timed calls of each model; 0: no timing.",
)
@click.option(
    "--top",
    type=click.IntRange(1),
    default=None,
    help="Show only the layers where the error rises most.",
)
@threads_option
@json_option
def command(
    a: Path,
    b: Path,
    shapes: tuple[tuple[int, ...], ...],
    top: int | None,
    as_json: bool,
    **rest: Any,
) -> None:
    """Compare model B with model A, the reference: agreement, error layer by layer, speed and size.

    Both may be libraries (.so), PyTorch files or ONNX files; each is run by an engine of its own
    kind.

    \b
    Examples:
      subpc compare model.onnx small.so --data images/
      subpc compare dense.pt pruned.pt --arch torchvision:resnet50 --data x.npy --top 10
    """
    from subpc.cli.progress import progress_line
    from subpc.comparison.compare import compare
    from subpc.images.prepare import Preparation

    how = {name: rest.pop(name) for name in ("mean", "std", "size", "resize")}
    changed = {name: value for name, value in how.items() if value is not None}
    with progress_line(quiet=as_json) as progress:
        preparation = Preparation(**changed) if "size" in changed else None
        report = compare(
            a, b, shapes=shapes or None, preparation=preparation, progress=progress, **rest
        )
    if as_json:
        show_json(
            {"verdict": report.verdict, "speed_ratio": report.speed_ratio, **report.to_dict()}
        )
    else:
        _print(report, top)


def _print(report: "ComparisonReport", top: int | None) -> None:
    show(
        _side("a", report.a),
        _side("b", report.b),
        f"data: {report.data}",
        _outputs(report),
        _layers(report, top),
    )
    if report.by_order:
        show(
            f"{len(report.by_order)} layers have other names in b, and were matched by their order:"
            " see the notes"
        )
    if report.skipped:
        names = ", ".join(f"{name} ({why})" for name, why in list(report.skipped.items())[:5])
        more = len(report.skipped) - 5
        show(f"not in both: {names}" + (f" and {more} more" if more > 0 else ""))
    show(report.verdict)


def _side(label: str, side: "SideInfo") -> str:
    time = (
        f"{side.timing.p50:.2f} ms"
        if side.timing
        else f"not timed: {flat(side.failure)}"
        if side.failure
        else "not timed"
    )
    return (
        f"{label}: {side.name} ({side.kind}, run by {side.engine}), {side.file_bytes / 1e6:.1f} MB,"
        f" {time}"
    )


def _outputs(report: "ComparisonReport") -> "Table":
    """One row an output; the share of equal elements where there are class numbers or masks."""
    whole = any(row.equal is not None for row in report.outputs)
    columns = (
        "same best class",
        *(["equal"] if whole else []),
        "KL divergence",
        "max error",
        "mean error",
        "relative error",
    )
    table = new_table("output", "shape", *columns)
    for row in report.outputs:
        shares = [
            f"{share:.1%}" if share is not None else "-"
            for share in (row.top1, *([row.equal] if whole else []))
        ]
        kl = f"{row.kl:.3g}" if row.kl is not None else "-"
        errors = [f"{value:.3g}" for value in (row.max_error, row.mean_error, row.relative)]
        table.add_row(row.name, "x".join(map(str, row.shape)), *shares, kl, *errors)
    return table


def _layers(report: "ComparisonReport", top: int | None) -> "Table":
    table = new_table("layer", "relative error", "rise", "max error", "note")
    rows = sorted(report.layers, key=lambda row: -(row.rise or 0.0))[:top] if top else report.layers
    for row in rows:
        numbers = [
            f"{value:.3g}" if value is not None else "-"
            for value in (row.relative, row.rise, row.max_error)
        ]
        table.add_row(row.layer, *numbers, row.note)
    return table
