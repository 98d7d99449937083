"""Settings of 1xN pruning without data."""

from dataclasses import dataclass

from subpc.algorithms.config import INPUTS, Config, check_choice, check_range
from subpc.algorithms.numerics.one_by_n import BLOCKS
from subpc.errors import ConfigError

CRITERIA = ("error", "l1")
COMPENSATIONS = ("full", "weights", "batch_norm", "none")


@dataclass(frozen=True, kw_only=True)
class BlockConfig(Config):
    """Block size, sparsity, and how the loss is made good.

    n: filters in a block; sparsity: share of input channels that each group of n filters loses, in
    [0, 1), the count rounded down.
    criterion: `l1` removes the smallest blocks, `error` those that the others replace best, in
    `rounds` batches. compensation: `weights` solves the kept weights anew, `batch_norm` moves the
    next batch norm's statistics, `full` does both.
    ridge: share of the mean diagonal added to the normal equations. inputs: what the networks are
    followed with where no images are given: random ones, `matched` to the batch norms where that
    takes a few seconds; `random` ones as they are; `normal` variables, from weights and batch
    norms alone.
    keep_dense: names of layers (fnmatch patterns) that stay dense, beside the stem, depthwise and
    grouped convolutions.
    """

    n: int = 16
    sparsity: float = 0.5
    criterion: str = "error"
    compensation: str = "full"
    rounds: int = 16
    ridge: float = 1e-2
    inputs: str = "matched"
    keep_dense: tuple[str, ...] = ("*downsample*", "*shortcut*")

    def __post_init__(self) -> None:
        if isinstance(self.n, bool) or self.n not in BLOCKS:
            raise ConfigError(f"n is {self.n!r}; accepted: {', '.join(map(str, BLOCKS))}.")
        check_range("sparsity", self.sparsity, 0, 0.999)
        check_range("ridge", self.ridge, 1e-9, 1e6)
        for name, accepted in (
            ("criterion", CRITERIA),
            ("compensation", COMPENSATIONS),
            ("inputs", INPUTS),
        ):
            check_choice(name, getattr(self, name), accepted)
        if type(self.rounds) is not int or not 1 <= self.rounds <= 1024:
            raise ConfigError(f"rounds is {self.rounds!r}; accepted: whole numbers from 1 to 1024.")
        if isinstance(self.keep_dense, str):
            raise ConfigError(
                f"keep_dense is {self.keep_dense!r}; accepted: a list of names and patterns."
            )

    @property
    def follows_network(self) -> bool:
        """Whether the settings need more than the weights."""
        return (self.criterion, self.compensation) != ("l1", "none")

    @property
    def needs_moments(self) -> bool:
        """Whether the settings need the second moments of a layer's inputs."""
        return self.criterion == "error" or self.compensation in ("full", "weights")
