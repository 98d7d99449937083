"""`subpc compress blocks`: uniform 1xN pruning of a pretrained network without data."""

from typing import TYPE_CHECKING, Any

import click

from subpc.cli.compress_common import compress_command, file_options
from subpc.cli.tables import new_table

if TYPE_CHECKING:
    from rich.table import Table

    from subpc.algorithms.blocks.config import BlockConfig
    from subpc.algorithms.data_free_report import DataFreeReport


@click.command("blocks")
@file_options
@click.option("--sparsity", type=float, default=0.5, show_default=True, help="Share of input channels that each group loses.")
@click.option("--block", "n", type=int, default=16, show_default=True, help="Filters in a block: 4, 8, 16 or 32.")
@click.option("--criterion", type=click.Choice(["error", "l1"]), default="error", show_default=True, help="Which blocks go: see below.")
@click.option(
    "--compensation",
    type=click.Choice(["full", "weights", "batch_norm", "none"]),
    default="full",
    show_default=True,
    help="Solve the kept weights anew, move the next batch norm's statistics, both, or neither.",
)
@click.option("--keep-dense", multiple=True, metavar="PATTERN", help="Layers to leave alone. [default: *downsample*, *shortcut*]")
def command(keep_dense: tuple[str, ...], **settings: Any) -> None:
    """Prune MODEL (a state dict with --arch, or a compressed file) to 1xN blocks that the sparse kernels skip.

    Blocks go that the others replace best (error), or the smallest (l1). No picture is read: how
    channels and pixels go together follows from filters and batch norms.

    \b
    Examples:
      subpc compress blocks weights.pth --arch torchvision:resnet18 --sparsity 0.5 --block 16 -o sparse.pt
      subpc compile sparse.pt --shape 1,3,224,224 -o sparse.so
    """

    def config(**values: Any) -> "BlockConfig":
        from subpc.algorithms.blocks.config import BlockConfig

        if keep_dense:
            values["keep_dense"] = keep_dense
        return BlockConfig(**values)

    compress_command(config, _table, _summary, settings)


def _summary(report: "DataFreeReport") -> str:
    pruned = [layer for layer in report.layers if layer.sparsity > 0]
    return f"{len(pruned)} of {len(report.layers)} layers pruned"


def _table(report: "DataFreeReport") -> "Table":
    table = new_table("layer", "filters", "zeros", "error before", "after", "why")
    for layer in report.layers:
        pruned = layer.sparsity > 0
        errors = (f"{layer.error_before:.3f}", f"{layer.error_after:.3f}") if pruned else ("", "")
        table.add_row(layer.name, str(layer.filters), f"{layer.sparsity:.0%}" if pruned else "", *errors, layer.reason)
    return table
