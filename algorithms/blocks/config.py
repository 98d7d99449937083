"""Settings of 1xN pruning without data."""

from dataclasses import dataclass

from subpc.algorithms.config import Config, check_range
from subpc.errors import ConfigError

BLOCKS = (4, 8, 16, 32)


@dataclass(frozen=True, kw_only=True)
class BlockConfig(Config):
    """Block size and sparsity.

    n: filters in a block; sparsity: share of input channels that each group of n filters loses, in [0, 1), the count rounded down.
    keep_dense: names of layers (fnmatch patterns) that stay dense, beside the stem, depthwise and grouped convolutions.
    """

    n: int = 16
    sparsity: float = 0.5
    keep_dense: tuple[str, ...] = ("*downsample*", "*shortcut*")

    def __post_init__(self) -> None:
        if isinstance(self.n, bool) or self.n not in BLOCKS:
            raise ConfigError(f"n is {self.n!r}; accepted: {', '.join(map(str, BLOCKS))}.")
        check_range("sparsity", self.sparsity, 0, 0.999)
        if isinstance(self.keep_dense, str):
            raise ConfigError(f"keep_dense is {self.keep_dense!r}; accepted: a list of names and patterns.")
