"""Settings of UDFC."""

from dataclasses import dataclass
from typing import Any

from subpc.algorithms.config import (
    INPUTS,
    Config,
    check_bits,
    check_choice,
    check_feedback,
    check_range,
)
from subpc.errors import ConfigError

METHODS = ("udfc", "merge", "plain")
STATISTICS = ("network", "gaussian", "weights")
CRITERIA = ("error", "l1", "l2")
SCALES = ("search", "max")
CHANNELS = ("inside", "all")


@dataclass(frozen=True, kw_only=True)
class UdfcConfig(Config):
    """Share of channels to remove, width of the weights, and the loss of section 2 of the paper.

    bits: None leaves float weights. method: `merge` is Neuron Merging, `plain` removes without
    reconstruction; both are baselines.
    statistics: `weights` is the paper's loss; `gaussian` regresses the removed channels, behind
    their ReLU, on the kept ones with a covariance from the filters and the batch norm, and moves
    the rest's mean into the next batch norm (not in the paper).
    ridge: share of the mean diagonal that is added to the normal equations of layers that lose
    inputs; ridge_elsewhere: of those that lose none and have rounding alone to make good, None for
    1 with images, as in DF-MPC, and `ridge` without.
    per_channel: one quantization scale a filter (the paper has one a layer). fold_scale: the
    paper's coefficient for quantized filters, folded into the batch norm; it shrinks the variance
    that the next batch norm expects, and at 4 bits costs up to 38 points (docs/data_free.md).
    feedback: each weight's rounding error made good by the weights that follow (GPTQ), None where
    it is known how the inputs go together: with images, and scales `search`.
    channels: `inside` removes those between layers of a block, which one convolution reads, with
    their depthwise filters and squeeze-and-excite; `all` those of residual streams and joined
    results, too, which needs images, random ones or others, and statistics network.
    inputs: what the networks are followed with where no images are given: random ones, `matched` to
    the batch norms where that takes a few seconds; `random` ones as they are; `normal` variables,
    from weights and batch norms alone. skip: dotted names of layers to leave alone.
    """

    ratio: float = 0.3
    channels: str = "inside"
    criterion: str = "error"
    bits: int | None = 6
    alpha1: float = 0.01
    alpha2: float = 0.008
    ridge: float = 1e-2
    ridge_elsewhere: float | None = None
    per_channel: bool = True
    scales: str = "search"
    feedback: bool | None = None
    fold_scale: bool = False
    method: str = "udfc"
    statistics: str = "network"
    inputs: str = "matched"
    skip: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_range("ratio", self.ratio, 0, 0.99)
        for name in ("alpha1", "alpha2", "ridge"):
            check_range(name, getattr(self, name), 0, 1e6)
        if self.ridge_elsewhere is not None:
            check_range("ridge_elsewhere", self.ridge_elsewhere, 0, 1e6)
        choices = {
            "channels": CHANNELS,
            "criterion": CRITERIA,
            "method": METHODS,
            "statistics": STATISTICS,
            "scales": SCALES,
            "inputs": INPUTS,
        }
        for name, accepted in choices.items():
            check_choice(name, getattr(self, name), accepted)
        check_feedback(self.feedback, self.scales)
        if self.bits is not None:
            check_bits(self.bits)
        if self.channels == "all" and not (self.follows_network and self.inputs != "normal"):
            raise ConfigError(
                "channels all needs images to follow the network with.\nLeave method, statistics"
                " and inputs at udfc, network and matched, or choose channels inside."
            )

    @classmethod
    def paper(cls, **others: Any) -> "UdfcConfig":
        """The closed form of the paper, with `others` set beside it."""
        return cls(
            **{
                "statistics": "weights",
                "per_channel": False,
                "fold_scale": True,
                "scales": "max",
                "ridge": 1e-4,
                **others,
            }
        )

    @property
    def follows_network(self) -> bool:
        """Whether the settings need more than the weights of a pair and its batch norm."""
        return self.method == "udfc" and self.statistics == "network"
