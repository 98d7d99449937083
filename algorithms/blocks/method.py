"""1xN pruning without data as a compression method: its options, its strengths, and how it is
run."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from subpc.algorithms.blocks.config import COMPENSATIONS, CRITERIA, BlockConfig
from subpc.algorithms.method import INPUTS_OPTION, Compressed, Option, Setting, idle_inputs
from subpc.algorithms.numerics.one_by_n import BLOCKS
from subpc.progress import Progress

if TYPE_CHECKING:
    import torch
    from torch import nn

    from subpc.algorithms.report import DataFreeReport, LayerResult

# Steps of the sparsity in a search: sixteenths.
_STEPS = 16


class BlocksMethod:
    """See subpc.algorithms.method.CompressionMethod."""

    name = "blocks"
    config: type[BlockConfig] = BlockConfig
    title = "Prune 1xN blocks, without data."
    text = """Prune MODEL to 1xN blocks that the sparse kernels skip, without data.

Blocks go that the others replace best (error), or the smallest (l1). No image is read: how
channels and pixels go together follows from filters and batch norms."""
    examples: tuple[str, ...] = (
        "blocks weights.pth --arch torchvision:resnet18 --sparsity 0.5 --block 16 -o small.pt",
        "blocks model.pt2 --calibration images/ -o small.pt",
        "blocks model.onnx --max-drop 1.0 --eval labelled/ -o small.safetensors",
    )
    without_batch_norms = "blocks are chosen and weights solved, but no statistics are moved"
    options: tuple[Option, ...] = (
        INPUTS_OPTION,
        Option(setting="sparsity", help="Share of input channels that each group loses."),
        Option(
            setting="n",
            help=f"Filters in a block: {', '.join(map(str, BLOCKS[:-1]))} or {BLOCKS[-1]}.",
            spelling="--block",
        ),
        Option(setting="criterion", help="Which blocks go: see below.", accepted=CRITERIA),
        Option(
            setting="compensation",
            help=(
                "Solve the kept weights anew, move the next batch norm's statistics, both, or"
                " neither."
            ),
            accepted=COMPENSATIONS,
        ),
        Option(
            setting="keep_dense",
            help="Layers to leave alone; repeat for several.",
            metavar="PATTERN",
        ),
    )

    def ladders(self, fixed: frozenset[str]) -> list[list[Setting]]:
        """The sparsity; see CompressionMethod."""
        return [] if "sparsity" in fixed else [[{"sparsity": i / _STEPS} for i in range(1, _STEPS)]]

    def gentlest(self, config: BlockConfig, fixed: frozenset[str]) -> BlockConfig:
        """See CompressionMethod; every rung sets the sparsity."""
        return config

    def without(self, config: BlockConfig, layers: tuple[str, ...]) -> BlockConfig:
        """See CompressionMethod."""
        return replace(config, keep_dense=(*config.keep_dense, *layers))

    def summary(self, layers: "Sequence[LayerResult]") -> list[str]:
        """See CompressionMethod."""
        return [f"{sum(layer.sparsity > 0 for layer in layers)} of {len(layers)} layers pruned"]

    def idle(self, config: BlockConfig, report: "DataFreeReport") -> dict[str, str]:
        """See CompressionMethod."""
        idle = idle_inputs(config.follows_network, report)
        if not any(layer.sparsity for layer in report.layers):
            settings = ("n", "criterion", "compensation", "rounds", "ridge")
            idle |= {"sparsity": "it is no whole block in any layer"}
            return idle | dict.fromkeys(settings, "no block is zero")
        if config.criterion != "error":
            idle["rounds"] = "it belongs to criterion error"
        if not config.needs_moments:
            idle["ridge"] = "no layer is solved"
        return idle

    def run(
        self,
        model: "nn.Module",
        config: BlockConfig,
        progress: Progress,
        *,
        images: "torch.Tensor | None",
        input_shape: tuple[int, ...] | None,
    ) -> Compressed:
        """See CompressionMethod."""
        from subpc.algorithms.blocks.compress import compress_blocks

        pruned, codes, report = compress_blocks(
            model, config, progress, images=images, input_shape=input_shape
        )
        blocks = {layer.name: config.n for layer in report.layers if layer.sparsity > 0}
        return Compressed(model=pruned, codes=codes, blocks=blocks, report=report)
