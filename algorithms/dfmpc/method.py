"""DF-MPC as a compression method: its options, its strengths, and how it is run."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from subpc.algorithms.config import MAX_BITS, MIN_BITS
from subpc.algorithms.dfmpc.config import COMPENSATIONS, RECALIBRATIONS, SCALES, DfmpcConfig
from subpc.algorithms.method import (
    FEEDBACK_OPTION,
    INPUTS_OPTION,
    SKIP_OPTION,
    Compressed,
    Option,
    Setting,
    idle_inputs,
)
from subpc.progress import Progress

if TYPE_CHECKING:
    import torch
    from torch import nn

    from subpc.algorithms.report import DataFreeReport, LayerResult

# Widths from the gentlest to the strongest: (low, high).
_WIDTHS = ((8, 8), (6, 8), (6, 6), (4, 6), (3, 6), (2, 6), (2, 5), (2, 4), (2, 3))


class DfmpcMethod:
    """See subpc.algorithms.method.CompressionMethod."""

    name = "dfmpc"
    config: type[DfmpcConfig] = DfmpcConfig
    title = "Quantize to mixed precision, without data."
    text = "Quantize the weights of MODEL to two widths, in seconds, without data."
    examples: tuple[str, ...] = (
        "dfmpc weights.pth --arch torchvision:resnet18 --low-bits 2 --high-bits 6 -o small.pt",
        "dfmpc model.pt2 --low-bits 6 --high-bits 6 --synthetic 64 -o small.pt",
        "dfmpc model.onnx --max-drop 1.0 --eval labelled/ -o small.safetensors",
    )
    without_batch_norms = "no layer can be compensated, so all have the high width"
    options: tuple[Option, ...] = (
        INPUTS_OPTION,
        Option(
            setting="low_bits",
            help=f"Width of the first layer of each pair, {MIN_BITS} (ternary) to {MAX_BITS}.",
        ),
        Option(setting="high_bits", help=f"Width of every other layer, {MIN_BITS} to {MAX_BITS}."),
        Option(setting="lambda1", help="Weight of the offsets in the loss."),
        Option(setting="lambda2", help="Weight of the coefficients' size in the loss."),
        Option(
            setting="compensation",
            help="Solve every layer anew for what it sees, equation 27 of the paper, or neither.",
            accepted=COMPENSATIONS,
        ),
        Option(
            setting="recalibration",
            help="How batch-norm statistics follow the quantized weights.",
            accepted=RECALIBRATIONS,
        ),
        Option(setting="clamp", help="No coefficient below zero."),
        Option(setting="scales", help="Of least error, or the paper's.", accepted=SCALES),
        Option(
            setting="per_channel",
            help="One threshold and scale a filter, or one a layer.",
            spelling="--per-channel/--per-layer",
        ),
        FEEDBACK_OPTION,
        SKIP_OPTION,
    )

    def ladders(self, fixed: frozenset[str]) -> list[list[Setting]]:
        """Both widths together, or the one that is free; see CompressionMethod."""
        if {"low_bits", "high_bits"} <= fixed:
            return []
        for decided, free in (("low_bits", "high_bits"), ("high_bits", "low_bits")):
            if decided in fixed:
                return [[{free: bits} for bits in range(MAX_BITS, MIN_BITS - 1, -1)]]
        return [[{"low_bits": low, "high_bits": high} for low, high in _WIDTHS]]

    def gentlest(self, config: DfmpcConfig, fixed: frozenset[str]) -> DfmpcConfig:
        """See CompressionMethod; every rung sets all widths that are free."""
        return config

    def without(self, config: DfmpcConfig, layers: tuple[str, ...]) -> DfmpcConfig:
        """See CompressionMethod."""
        return replace(config, skip=(*config.skip, *layers))

    def summary(self, layers: "Sequence[LayerResult]") -> list[str]:
        """See CompressionMethod; the widths say everything."""
        return []

    def idle(self, config: DfmpcConfig, report: "DataFreeReport") -> dict[str, str]:
        """See CompressionMethod."""
        widths = {layer.bits for layer in report.layers}
        idle = idle_inputs(config.follows_network, report)
        paired = config.low_bits in widths
        if config.high_bits not in widths:
            idle["high_bits"] = "no layer has this width"
        if config.compensation != "scalar" or not paired:
            why = "it belongs to compensation scalar" if paired else "no layer has low_bits"
            idle |= dict.fromkeys(("lambda1", "lambda2", "clamp"), why)
        if config.compensation != "solve" and config.scales != "search":
            idle["ridge"] = "no layer is solved"
        return idle

    def run(
        self,
        model: "nn.Module",
        config: DfmpcConfig,
        progress: Progress,
        *,
        images: "torch.Tensor | None",
        input_shape: tuple[int, ...] | None,
    ) -> Compressed:
        """See CompressionMethod."""
        from subpc.algorithms.dfmpc.compress import compress_dfmpc

        smaller, codes, report = compress_dfmpc(
            model, config, progress, images=images, input_shape=input_shape
        )
        return Compressed(model=smaller, codes=codes, report=report)
