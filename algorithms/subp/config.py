"""What SUBP training is asked to do."""

from dataclasses import dataclass, replace

from subpc.algorithms.config import PAPER
from subpc.algorithms.numerics.one_by_n import BLOCKS
from subpc.errors import ConfigError
from subpc.records import Record

CRITERIA = ("bpar", "l1", "l2")
SCHEDULES = ("cubic", "linear", "cos", "exp")


@dataclass(frozen=True, kw_only=True)
class SubpConfig(Record):
    """The SUBP method's settings; ConfigError with the reason for values that do not fit together.

    n: filters in a block; sparsity: final share of pruned blocks, in [0, 1); criterion: what ranks
    the blocks, `bpar`, `l1` or `l2`;
    alpha: weight of the redundancy in BPAR; temperature: of the regrowth's softmax; schedule: how
    the sparsity grows; start, end: epochs between which it does, or, where end is below 1,
    fractions of the training, which `resolved` turns into epochs; soft_decay: extra decay of masked
    weights; keep_dense: layers that stay dense (see algorithms.network.keep_dense): names,
    patterns, kernel sizes, "paper";
    latent_scores: rank by the dense weights that lie behind the mask instead of the masked ones;
    seed: of the regrowth.
    """

    n: int = 16
    sparsity: float = 0.75
    criterion: str = "bpar"
    alpha: float = 1.0
    temperature: float = 1.0
    schedule: str = "cubic"
    start: float = 0.05
    end: float = 0.9
    soft_decay: float = 2e-4
    keep_dense: tuple[str, ...] = (PAPER,)
    latent_scores: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        rules = (
            (self.n in BLOCKS, f"n is {self.n}; accepted: {BLOCKS}"),
            (
                0 <= self.sparsity < 1,
                f"sparsity is {self.sparsity}; at least 0 and less than 1 is accepted",
            ),
            (self.criterion in CRITERIA, f"criterion is {self.criterion!r}; accepted: {CRITERIA}"),
            (self.schedule in SCHEDULES, f"schedule is {self.schedule!r}; accepted: {SCHEDULES}"),
            (
                0 <= self.start <= self.end < float("inf"),
                (
                    f"start is {self.start} and end is {self.end}; numbers with 0 <= start <= end"
                    " are accepted"
                ),
            ),
            (
                0 < self.temperature < float("inf"),
                f"temperature is {self.temperature}; a positive number is accepted",
            ),
            (0 <= self.alpha < float("inf"), f"alpha is {self.alpha}; 0 or more is accepted"),
            (
                0 <= self.seed < 1 << 20,
                f"seed is {self.seed}; whole numbers from 0 to {(1 << 20) - 1} are accepted",
            ),
            (
                not isinstance(self.keep_dense, str),
                (
                    f"keep_dense is {self.keep_dense!r}; a list of names, patterns and sizes is"
                    " accepted"
                ),
            ),
            (
                0 <= self.soft_decay < 1,
                f"soft_decay is {self.soft_decay}; at least 0 and less than 1 is accepted",
            ),
        )
        for accepted, message in rules:
            if not accepted:
                raise ConfigError(f"SubpConfig: {message}.")

    @property
    def in_fractions(self) -> bool:
        """Whether start and end are fractions of a training."""
        return 0 < self.end < 1

    def resolved(self, epochs: int) -> "SubpConfig":
        """This config with start and end as epochs of a training of `epochs`: the last one, at the
        latest, has all of the sparsity.

        ConfigError if the training ends before that.
        """
        last = epochs - 1
        if self.in_fractions:
            end = min(self.end * epochs, last)
            return replace(self, start=min(self.start * epochs, end), end=end)
        if self.end > last:
            raise ConfigError(
                f"SubpConfig: the sparsity grows until epoch {self.end:g} of 0 to {last}; {last} at"
                " most is accepted."
            )
        return self
