"""What the compression methods share on the command line: files in and out, progress, table or JSON."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from subpc.cli.options import json_option
from subpc.cli.tables import show, show_json

if TYPE_CHECKING:
    from rich.table import Table

    from subpc.algorithms.config import Config
    from subpc.algorithms.data_free_report import DataFreeReport

FILE_OPTIONS = (
    click.argument("model", type=click.Path(path_type=Path)),
    click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The compressed model file to write (.pt)."),
    click.option("--arch", help="Architecture of a state dict: torchvision:resnet50, timm:NAME or package.module:function."),
    json_option,
)


def file_options(function: Callable[..., None]) -> Callable[..., None]:
    """MODEL, --output, --arch and --json."""
    for option in reversed(FILE_OPTIONS):
        function = option(function)
    return function


def compress_command(
    config: "Callable[..., Config]",
    table: "Callable[[DataFreeReport], Table]",
    summary: "Callable[[DataFreeReport], str]",
    settings: dict[str, Any],
) -> None:
    """Compress and print. settings: the values of file_options, and what `config` takes."""
    from subpc.cli.progress import progress_line

    model, output, arch, as_json = (settings.pop(name) for name in ("model", "output", "arch", "as_json"))
    with progress_line(quiet=as_json) as progress:
        from subpc.compression import compress_file

        report = compress_file(model, config(**settings), output, arch=arch, progress=progress)
    written = output.stat().st_size
    if as_json:
        show_json({**report.to_dict(), "output": str(output), "bytes_on_disk": written})
        return
    show(table(report))
    show(f"{summary(report)}; pictures used: {report.inputs}")
    show(f"wrote {output} ({written / 1e6:.2f} MB; weights {report.bytes / 1e6:.2f} MB)")
