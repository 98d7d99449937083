"""Settings of DF-MPC."""

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

RECALIBRATIONS = ("network", "norm-ratio", "none")
COMPENSATIONS = ("solve", "scalar", "none")
SCALES = ("search", "paper")


@dataclass(frozen=True, kw_only=True)
class DfmpcConfig(Config):
    """Widths of the two layers of a pair, and how the loss is made good.

    low_bits: first layer of each pair, 2 is ternary; high_bits: every other layer. skip: dotted
    names of layers to leave alone.

    Settings of the paper, all of them together in DfmpcConfig.paper(): compensation `scalar` is
    equation 27, one coefficient a channel folded into the first layer's batch norm, with lambda1,
    lambda2 and clamp (no coefficient below zero, which the derivation asks for); recalibration
    `norm-ratio` takes the first layer's batch-norm statistics from the norms of the filters (the
    paper has one sentence about it and no formula); scales `paper` are those of its section 3.1,
    one a layer without per_channel.

    What differs from it, on by measurement (docs/data_free.md): compensation `solve` solves every
    layer anew for what the quantized layers before it give, ridge being the share of the mean
    diagonal in the normal equations; recalibration `network` gives every batch norm the statistics
    behind the quantized layers; scales `search` minimises each layer's error weighted with the
    variance of its inputs; per_channel: one scale a filter; feedback: each weight's rounding error
    made good by the weights that follow (GPTQ), None where it is known how the inputs go together:
    with images, and scales `search`. inputs: what the networks are followed with where no images
    are given: random ones, `matched` to the batch norms where that takes a few seconds; `random`
    ones as they are; `normal` variables, from weights and batch norms alone. `none` as
    recalibration or compensation leaves it out.
    """

    low_bits: int = 2
    high_bits: int = 6
    lambda1: float = 0.5
    lambda2: float = 0.0
    compensation: str = "solve"
    clamp: bool = True
    recalibration: str = "network"
    scales: str = "search"
    per_channel: bool = True
    feedback: bool | None = None
    ridge: float = 1.0
    inputs: str = "matched"
    skip: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_bits(self.low_bits, "low_bits")
        check_bits(self.high_bits, "high_bits")
        for name in ("lambda1", "lambda2"):
            check_range(name, getattr(self, name), 0, 1e6)
        check_range("ridge", self.ridge, 1e-9, 1e6)
        for name in ("clamp", "per_channel"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} is {getattr(self, name)!r}; accepted: true, false.")
        choices = {
            "recalibration": RECALIBRATIONS,
            "compensation": COMPENSATIONS,
            "scales": SCALES,
            "inputs": INPUTS,
        }
        for name, accepted in choices.items():
            check_choice(name, getattr(self, name), accepted)
        if self.recalibration == "norm-ratio" and (
            self.compensation == "solve" or self.scales == "search" or self.feedback
        ):
            raise ConfigError(
                "recalibration norm-ratio looks at weights alone; accepted with it: compensation"
                " scalar or none, scales paper, no feedback."
            )
        check_feedback(self.feedback, self.scales)

    @classmethod
    def paper(cls, **others: Any) -> "DfmpcConfig":
        """The closed form of the paper, with `others` set beside it."""
        faithful = {
            "compensation": "scalar",
            "recalibration": "norm-ratio",
            "scales": "paper",
            "per_channel": False,
        }
        return cls(**{**faithful, **others})

    @property
    def follows_network(self) -> bool:
        """Whether the settings need more than the weights of a pair and its batch norm."""
        return (
            self.recalibration == "network"
            or self.compensation == "solve"
            or self.scales == "search"
        )
