"""`subpc profile`: where the time goes."""

from pathlib import Path

import click

from subpc.cli.options import SHAPE, json_option, threads_option
from subpc.cli.tables import profile_table, show, show_json


@click.command("profile")
@click.argument("library", type=click.Path(path_type=Path))
@click.option("--runs", type=click.IntRange(1), default=20, show_default=True, help="Timed repetitions of every step.")
@click.option("--warmup", type=click.IntRange(0), default=5, show_default=True, help="Runs before timing starts.")
@click.option("--top", type=click.IntRange(1), default=None, help="Show only the slowest layers.")
@click.option("--shape", "shapes", type=SHAPE, multiple=True, help="Input shape, for a library that has several.")
@threads_option
@json_option
def command(
    library: Path,
    runs: int,
    warmup: int,
    top: int | None,
    shapes: tuple[tuple[int, ...], ...],
    threads: int | None,
    as_json: bool,
) -> None:
    """Time every layer of LIBRARY alone, by the names of the original model.

    \b
    Example:
      subpc profile model.so --top 10
    """
    from subpc.runtime import load

    model = load(library, threads=threads)
    profile = model.profile(runs=runs, warmup=warmup, shapes=shapes or None)
    if as_json:
        show_json({"headline": model.report.headline, "threads": model.threads, **profile.to_dict()})
        return
    gap = f"{profile.steps_ms - profile.total_ms:+.3f}"
    show(model.report.headline, profile_table(profile, top))
    show(f"whole call {profile.total_ms:.3f} ms; sum of the steps {profile.steps_ms:.3f} ms ({gap}); {model.threads} threads")
