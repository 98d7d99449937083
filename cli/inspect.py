"""`subpc inspect`: what is in a library."""

from pathlib import Path

import click

from subpc.cli.options import LIBRARY, FileCommand, json_option
from subpc.cli.printing import show, show_json
from subpc.cli.tables import function_lines, layer_table
from subpc.errors import TargetError


@click.command("inspect", cls=FileCommand)
@click.argument("library", type=LIBRARY)
@json_option
def command(library: Path, as_json: bool) -> None:
    """Show what LIBRARY contains: inputs, outputs, and what was decided for each layer and why.
    Nothing in it is executed.

    \b
    Example:
      subpc inspect model.so
    """
    from subpc.library.artifact import read_metadata
    from subpc.library.report import CompileReport
    from subpc.machine.cpu import missing_features

    metadata = read_metadata(library)
    report = CompileReport(metadata=metadata)
    missing: list[str] | None = None
    try:
        missing = list(missing_features(metadata.features))
        runs = f"this CPU lacks {', '.join(missing)}" if missing else "runs on this CPU"
    except TargetError as error:
        runs = str(error)
    if as_json:
        show_json(
            {**report.to_dict(), "bytes": library.stat().st_size, "missing_features": missing}
        )
        return
    show(
        report.headline,
        report.summary,
        layer_table(report),
        "functions:",
        *function_lines(metadata),
    )
    versions = ", ".join(f"{name} {version}" for name, version in metadata.versions.items())
    show(
        f"file: {library.stat().st_size / 1e6:.1f} MB; {runs}; made by"
        f" {versions or 'unknown versions'}"
    )
    show(*(f"warning: {w}" for w in metadata.warnings), *(f"note: {n}" for n in metadata.notes))
