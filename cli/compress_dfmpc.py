"""`subpc compress dfmpc`: mixed-precision weights of a pretrained network without data."""

from typing import TYPE_CHECKING, Any

import click

from subpc.cli.compress_common import compress_command, file_options
from subpc.cli.options import FileCommand

if TYPE_CHECKING:
    from subpc.algorithms.dfmpc.config import DfmpcConfig


@click.command("dfmpc", cls=FileCommand)
@file_options
@click.option("--low-bits", type=int, default=2, show_default=True, help="Width of the first layer of each pair, 2 (ternary) to 8.")
@click.option("--high-bits", type=int, default=6, show_default=True, help="Width of every other layer, 2 to 8.")
@click.option("--lambda1", type=float, default=0.5, show_default=True, help="Weight of the offsets in the loss.")
@click.option("--lambda2", type=float, default=0.0, show_default=True, help="Weight of the coefficients' size in the loss.")
@click.option(
    "--compensation",
    type=click.Choice(["solve", "scalar", "none"]),
    default="solve",
    show_default=True,
    help="Solve every layer anew for what it sees, equation 27 of the paper, or neither.",
)
@click.option(
    "--recalibration",
    type=click.Choice(["network", "norm-ratio", "none"]),
    default="network",
    show_default=True,
    help="How batch-norm statistics follow the quantized weights.",
)
@click.option("--clamp/--no-clamp", default=True, show_default=True, help="No coefficient below zero.")
@click.option(
    "--scales", type=click.Choice(["search", "paper"]), default="search", show_default=True, help="Of least error, or the paper's."
)
@click.option("--per-channel/--per-layer", default=True, show_default=True, help="One threshold and scale a filter, or one a layer.")
@click.option(
    "--feedback/--no-feedback",
    default=None,
    help="Make each rounding error good by the weights that follow (GPTQ). [default: with images, random ones too]",
)
@click.option("--skip", multiple=True, metavar="LAYER", help="Leave this layer alone; repeat for several.")
def command(**settings: Any) -> None:
    """Quantize the weights of MODEL to two widths, in seconds, without data.

    MODEL is what `subpc compile` takes: .pt2, TorchScript or .onnx, a state dict with --arch, or a file that subpc compressed. OUTPUT
    holds plain tensors and descriptions, no code; `subpc compile` and this command take it with no further word.

    \b
    Examples:
      subpc compress dfmpc weights.pth --arch torchvision:resnet18 --low-bits 2 --high-bits 6 -o small.pt
      subpc compress dfmpc model.pt2 --low-bits 6 --high-bits 6 --synthetic 64 -o small.pt
      subpc compress dfmpc model.onnx --max-drop 1.0 --eval labelled/ -o small.safetensors
      subpc compile small.pt -o small.so
    """

    def config(**values: Any) -> "DfmpcConfig":
        from subpc.algorithms.dfmpc.config import DfmpcConfig

        return DfmpcConfig(**values)

    compress_command(config, settings, ("low_bits", "high_bits"))
