"""`subpc profile`: where the time goes."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from subpc.cli.options import (
    ARCH,
    INPUT,
    LIBRARY,
    MODEL,
    OUTPUT,
    FileCommand,
    json_option,
    library_shape_option,
    part_option,
    threads_option,
)
from subpc.cli.printing import show, show_json
from subpc.cli.tables import profile_table
from subpc.files import described

if TYPE_CHECKING:
    from subpc.bench.report import BenchReport
    from subpc.profiling.profile import Profile


@click.command("profile", cls=FileCommand)
@click.argument("library", type=LIBRARY)
@click.option(
    "--runs",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    help="Timed repetitions of every step.",
)
@click.option(
    "--warmup",
    type=click.IntRange(0),
    default=5,
    show_default=True,
    help="Runs before timing starts.",
)
@click.option("--top", type=click.IntRange(1), default=None, help="Show only the slowest layers.")
@library_shape_option
@click.option(
    "--no-probes",
    is_flag=True,
    help="Do not measure the machine's peak and the balance of the threads.",
)
@click.option(
    "--html", "page", type=OUTPUT, help="Write a report with plots, one page that needs no network."
)
@click.option(
    "--bench", "bench_file", type=INPUT, help="What `subpc bench --json` printed, for the report."
)
@click.option(
    "--compare",
    default="",
    metavar="ENGINES",
    help="Time other engines now, for the report: onnxruntime,openvino,...",
)
@click.option(
    "--model", type=MODEL, help="The model file that LIBRARY was compiled from, for --compare."
)
@click.option("--arch", type=ARCH, help="Architecture of --model, as for compile.")
@part_option
@threads_option
@json_option
def command(
    library: Path,
    shapes: tuple[tuple[int, ...], ...],
    page: Path | None,
    as_json: bool,
    **rest: Any,
) -> None:
    """Time every layer of LIBRARY alone, by the names of the original model.

    \b
    Examples:
      subpc profile model.so --top 10
      subpc profile model.so --html report.html --compare onnxruntime,openvino --model model.onnx
    """
    from subpc.runtime.model import load

    if page is None and (rest["bench_file"] or rest["compare"]):
        raise click.UsageError(
            "--bench and --compare are for the report; give it a name with --html FILE"
        )
    if rest["bench_file"] and rest["compare"]:
        raise click.UsageError("give --bench FILE or --compare ENGINES, not both")
    bench = _read_bench(rest["bench_file"])
    model = load(library, threads=rest["threads"])
    profile = model.profile(
        runs=rest["runs"],
        warmup=rest["warmup"],
        shapes=shapes or None,
        probes=not rest["no_probes"],
    )
    if page is not None:
        from subpc.profile_page.page import PageInput, write_page

        bench = bench or _compare(library, rest, shapes, as_json)
        size = library.stat().st_size
        write_page(
            page,
            PageInput(
                metadata=model.report.metadata, profile=profile, file_bytes=size, bench=bench
            ),
        )
    if as_json:
        show_json(
            {"headline": model.report.headline, "gap_ms": profile.gap_ms, **profile.to_dict()}
        )
        return
    show(model.report.headline, profile_table(profile, rest["top"]), *_summary(profile))
    show(*([f"wrote {described(page)}"] if page is not None else []))


def _summary(profile: "Profile") -> list[str]:
    sums = (
        f"whole call {profile.total_ms:.3f} ms; sum of the steps {profile.steps_ms:.3f} ms; gap"
        f" {profile.gap_ms:+.3f} ms"
    )
    lines = [f"{sums}; {profile.threads} threads"]
    if profile.peak is not None:
        speeds = (
            f"reading {profile.peak.cache_gbytes:.0f} GB/s from cache,"
            f" {profile.peak.memory_gbytes:.0f} GB/s from memory"
        )
        integers = profile.peak.integer_gops
        of_bytes = f", {integers:.0f} GOP/s in int8" if integers else ""
        lines.append(f"measured peak {profile.peak.gflops:.0f} GFLOP/s{of_bytes}; {speeds}")
    return [*lines, *(f"note: {note}" for note in profile.notes)]


def _read_bench(path: Path | None) -> "BenchReport | None":
    if path is None:
        return None
    from subpc.bench.report import read_bench

    return read_bench(path)


def _compare(
    library: Path, rest: dict[str, Any], shapes: tuple[tuple[int, ...], ...], quiet: bool
) -> "BenchReport | None":
    rivals = [name.strip() for name in rest["compare"].split(",") if name.strip()]
    if not rivals:
        return None
    from subpc.bench import bench
    from subpc.cli.bench import source_of
    from subpc.cli.progress import progress_line

    with progress_line(quiet=quiet) as progress:
        source = (
            source_of(rest["model"], rest["arch"], False, rest["part"])
            if rest["model"] is not None
            else None
        )
        return bench.time_engines(
            library,
            rivals,
            model=source,
            shapes=shapes or None,
            threads=rest["threads"],
            progress=progress,
        )
