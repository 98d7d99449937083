"""UDFC as a compression method: its options, its strengths, and how it is run."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from subpc.algorithms.config import MAX_BITS, MIN_BITS
from subpc.algorithms.method import (
    FEEDBACK_OPTION,
    INPUTS_OPTION,
    SKIP_OPTION,
    Compressed,
    Option,
    Setting,
    idle_inputs,
)
from subpc.algorithms.udfc.config import CHANNELS, CRITERIA, METHODS, SCALES, UdfcConfig
from subpc.progress import Progress

if TYPE_CHECKING:
    import torch
    from torch import nn

    from subpc.algorithms.report import DataFreeReport, LayerResult


class UdfcMethod:
    """See subpc.algorithms.method.CompressionMethod."""

    name = "udfc"
    config: type[UdfcConfig] = UdfcConfig
    title = "Remove channels and quantize weights, without data."
    text = "Remove channels of MODEL and quantize its weights, in seconds, without data."
    examples: tuple[str, ...] = (
        "udfc weights.pth --arch torchvision:resnet18 --ratio 0.3 --bits 6 -o small.pt",
        "udfc model.pt2 --bits 4 --calibration images/ -o small.pt",
        "udfc model.onnx --max-drop 1.0 --eval labelled/ -o small.safetensors",
    )
    without_batch_norms = (
        "channels are removed only where images are given (--calibration); weights are quantized as"
        " asked"
    )
    options: tuple[Option, ...] = (
        INPUTS_OPTION,
        Option(setting="ratio", help="Share of channels to remove inside each block."),
        Option(
            setting="bits",
            help=f"Width of the weights, {MIN_BITS} to {MAX_BITS}; 32 leaves them float.",
            none=32,
        ),
        Option(
            setting="channels",
            help="Channels inside blocks, or those of residual streams and joins, too.",
            accepted=CHANNELS,
        ),
        Option(setting="criterion", help="What ranks channels.", accepted=CRITERIA),
        Option(
            setting="method",
            help="Reconstruction; merge (Neuron Merging) and plain are baselines.",
            accepted=METHODS,
        ),
        Option(
            setting="statistics",
            help="Statistics that follow the whole network, or the paper's loss.",
            accepted=("network", "weights"),
        ),
        Option(setting="scales", help="Of least error, or the paper's.", accepted=SCALES),
        Option(
            setting="per_channel",
            help="One quantization scale a filter, or one a layer.",
            spelling="--per-channel/--per-layer",
        ),
        FEEDBACK_OPTION,
        Option(
            setting="fold_scale",
            help="Fold the paper's coefficient for quantized filters into the batch norms.",
        ),
        SKIP_OPTION,
    )

    def ladders(self, fixed: frozenset[str]) -> list[list[Setting]]:
        """First the width of the weights with no channel removed, then the ratio; see
        CompressionMethod."""
        widths: list[Setting] = [{"bits": bits} for bits in range(MAX_BITS, MIN_BITS - 1, -1)]
        ratios: list[Setting] = [{"ratio": round(0.05 * i, 2)} for i in range(1, 19)]
        return [rungs for rungs in (widths, ratios) if not set(rungs[0]) <= fixed]

    def gentlest(self, config: UdfcConfig, fixed: frozenset[str]) -> UdfcConfig:
        """See CompressionMethod."""
        if "ratio" not in fixed:
            config = replace(config, ratio=0.0)
        return config if "bits" in fixed else replace(config, bits=MAX_BITS)

    def without(self, config: UdfcConfig, layers: tuple[str, ...]) -> UdfcConfig:
        """See CompressionMethod."""
        return replace(config, skip=(*config.skip, *layers))

    def summary(self, layers: "Sequence[LayerResult]") -> list[str]:
        """See CompressionMethod."""
        removed = sum(layer.filters - layer.kept for layer in layers)
        return [f"{removed} of {sum(layer.filters for layer in layers)} channels removed"]

    def idle(self, config: UdfcConfig, report: "DataFreeReport") -> dict[str, str]:
        """See CompressionMethod."""
        idle = idle_inputs(config.follows_network, report)
        if all(layer.kept == layer.filters for layer in report.layers):
            idle |= dict.fromkeys(("criterion", "channels"), "no channel is removed")
        if config.bits is None:
            settings = ("scales", "per_channel", "feedback", "fold_scale")
            return idle | dict.fromkeys(settings, "the weights stay float")
        if config.follows_network:
            return idle | {"fold_scale": "it belongs to statistics weights"}
        return idle | dict.fromkeys(("scales", "feedback"), "it belongs to statistics network")

    def run(
        self,
        model: "nn.Module",
        config: UdfcConfig,
        progress: Progress,
        *,
        images: "torch.Tensor | None",
        input_shape: tuple[int, ...] | None,
    ) -> Compressed:
        """See CompressionMethod."""
        from subpc.algorithms.udfc.compress import compress_udfc

        smaller, codes, report = compress_udfc(
            model, config, progress, images=images, input_shape=input_shape
        )
        return Compressed(model=smaller, codes=codes, report=report)
