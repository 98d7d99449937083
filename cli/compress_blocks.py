"""`subpc compress blocks`: uniform 1xN pruning of a pretrained network without data."""

from typing import TYPE_CHECKING, Any

import click

from subpc.cli.compress_common import compress_command, file_options
from subpc.cli.options import FileCommand

if TYPE_CHECKING:
    from subpc.algorithms.blocks.config import BlockConfig


@click.command("blocks", cls=FileCommand)
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
    """Prune MODEL to 1xN blocks that the sparse kernels skip, without data.

    Blocks go that the others replace best (error), or the smallest (l1). No image is read: how
    channels and pixels go together follows from filters and batch norms.

    MODEL is what `subpc compile` takes: .pt2, TorchScript or .onnx, a state dict with --arch, or a file that subpc compressed. OUTPUT
    holds plain tensors and descriptions, no code; `subpc compile` and this command take it with no further word.

    \b
    Examples:
      subpc compress blocks weights.pth --arch torchvision:resnet18 --sparsity 0.5 --block 16 -o sparse.pt
      subpc compress blocks model.pt2 --calibration images/ -o sparse.pt
      subpc compress blocks model.onnx --max-drop 1.0 --eval labelled/ -o sparse.safetensors
      subpc compile sparse.pt -o sparse.so
    """

    def config(**values: Any) -> "BlockConfig":
        from subpc.algorithms.blocks.config import BlockConfig

        if keep_dense:
            values["keep_dense"] = keep_dense
        return BlockConfig(**values)

    compress_command(config, settings, ("sparsity",))
