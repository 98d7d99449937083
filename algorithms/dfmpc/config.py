"""Settings of DF-MPC."""

from dataclasses import dataclass

from subpc.algorithms.config import Config, check_range
from subpc.algorithms.quantizers import check_bits
from subpc.errors import ConfigError

RECALIBRATIONS = ("none", "norm-ratio")
COMPENSATIONS = ("none", "scalar")


@dataclass(frozen=True, kw_only=True)
class DfmpcConfig(Config):
    """Widths of the two layers of a pair, and the loss of equation 22 of the paper.

    low_bits: first layer of each pair, 2 is ternary; high_bits: every other layer. compensation: `scalar` is equation 27, one
    coefficient a channel, folded into the first layer's batch norm; `none` only quantizes. clamp: no coefficient below zero, which the
    derivation asks for. recalibration: where the first layer's batch-norm statistics come from; `norm-ratio` is the norms of the
    filters (the paper has one sentence about it and no formula). per_channel: one ternary threshold and one scale a filter, where the
    paper has one a layer. skip: dotted names of layers to leave alone.
    """

    low_bits: int = 2
    high_bits: int = 6
    lambda1: float = 0.5
    lambda2: float = 0.0
    compensation: str = "scalar"
    clamp: bool = True
    recalibration: str = "norm-ratio"
    per_channel: bool = False
    skip: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_bits(self.low_bits, "low_bits")
        check_bits(self.high_bits, "high_bits")
        for name in ("lambda1", "lambda2"):
            check_range(name, getattr(self, name), 0, 1e6)
        for name in ("clamp", "per_channel"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} is {getattr(self, name)!r}; accepted: true, false.")
        for name, accepted in (("recalibration", RECALIBRATIONS), ("compensation", COMPENSATIONS)):
            if getattr(self, name) not in accepted:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; accepted: {', '.join(accepted)}.")
