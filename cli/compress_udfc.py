"""`subpc compress udfc`: channel pruning and quantization of a pretrained network without data."""

from typing import TYPE_CHECKING, Any

import click

from subpc.cli.compress_common import compress_command, file_options
from subpc.cli.options import FileCommand

if TYPE_CHECKING:
    from subpc.algorithms.udfc.config import UdfcConfig


@click.command("udfc", cls=FileCommand)
@file_options
@click.option("--ratio", type=float, default=0.3, show_default=True, help="Share of channels to remove inside each block.")
@click.option("--bits", type=int, default=6, show_default=True, help="Width of the weights, 2 to 8; 32 leaves them float.")
@click.option("--criterion", type=click.Choice(["error", "l1", "l2"]), default="error", show_default=True, help="What ranks channels.")
@click.option(
    "--method",
    type=click.Choice(["udfc", "merge", "plain"]),
    default="udfc",
    show_default=True,
    help="Reconstruction; merge (Neuron Merging) and plain are baselines.",
)
@click.option(
    "--statistics",
    type=click.Choice(["network", "weights"]),
    default="network",
    show_default=True,
    help="Statistics that follow the whole network, or the paper's loss.",
)
@click.option("--scales", type=click.Choice(["search", "max"]), default="search", show_default=True, help="Of least error, or the paper's.")
@click.option("--per-channel/--per-layer", default=True, show_default=True, help="One quantization scale a filter, or one a layer.")
@click.option("--feedback", is_flag=True, help="Make each rounding error good by the weights that follow (GPTQ).")
@click.option("--fold-scale", is_flag=True, help="Fold the paper's coefficient for quantized filters into the batch norms.")
@click.option("--skip", multiple=True, metavar="LAYER", help="Leave this layer alone; repeat for several.")
def command(bits: int, **settings: Any) -> None:
    """Remove channels of MODEL and quantize its weights, in seconds, without data.

    MODEL is what `subpc compile` takes: .pt2, TorchScript or .onnx, a state dict with --arch, or a file that subpc compressed. OUTPUT
    holds plain tensors and descriptions, no code; `subpc compile` and this command take it with no further word.

    \b
    Examples:
      subpc compress udfc weights.pth --arch torchvision:resnet18 --ratio 0.3 --bits 6 -o small.pt
      subpc compress udfc model.pt2 --bits 4 --calibration images/ -o small.pt
      subpc compress udfc model.onnx --max-drop 1.0 --eval labelled/ -o small.safetensors
      subpc compile small.pt -o small.so
    """

    def config(**values: Any) -> "UdfcConfig":
        from subpc.algorithms.udfc.config import UdfcConfig

        return UdfcConfig(bits=None if bits == 32 else bits, **values)

    compress_command(config, settings, ("ratio", "bits"))
