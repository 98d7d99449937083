"""What SUBP training is asked to do."""

from dataclasses import dataclass, replace

from subpc.errors import ConfigError
from subpc.report import Record

BLOCKS = (4, 8, 16, 32)
CRITERIA = ("bpar", "l1", "l2")
SCHEDULES = ("cubic", "linear", "cos", "exp")


@dataclass(frozen=True, kw_only=True)
class SubpConfig(Record):
    """The SUBP method's settings; ConfigError with the reason for values that do not fit together.

    n: filters in a block; sparsity: final share of pruned blocks, in [0, 1); alpha: weight of the redundancy in BPAR; temperature: of
    the regrowth's softmax; start, end: epochs between which sparsity grows, or fractions of the training (both between 0 and 1), which
    `resolved` turns into epochs; soft_decay: extra decay of masked weights; keep_dense:
    names of layers (fnmatch patterns) that stay dense, beside stems, depthwise and grouped convolutions; latent_scores: rank by the
    dense weights that lie behind the mask instead of the masked ones; seed: of the regrowth.
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
    keep_dense: tuple[str, ...] = ("*downsample*", "*shortcut*")
    latent_scores: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        rules = (
            (self.n in BLOCKS, f"n is {self.n}; accepted: {BLOCKS}"),
            (0 <= self.sparsity < 1, f"sparsity is {self.sparsity}; at least 0 and less than 1 is accepted"),
            (self.criterion in CRITERIA, f"criterion is {self.criterion!r}; accepted: {CRITERIA}"),
            (self.schedule in SCHEDULES, f"schedule is {self.schedule!r}; accepted: {SCHEDULES}"),
            (0 <= self.start <= self.end, f"start is {self.start} and end is {self.end}; 0 <= start <= end is accepted"),
            (0 < self.temperature < float("inf"), f"temperature is {self.temperature}; a positive number is accepted"),
            (0 <= self.alpha < float("inf"), f"alpha is {self.alpha}; 0 or more is accepted"),
            (0 <= self.seed < 1 << 20, f"seed is {self.seed}; whole numbers from 0 to {(1 << 20) - 1} are accepted"),
            (0 <= self.soft_decay < 1, f"soft_decay is {self.soft_decay}; at least 0 and less than 1 is accepted"),
        )
        for accepted, message in rules:
            if not accepted:
                raise ConfigError(f"SubpConfig: {message}.")

    def resolved(self, epochs: int) -> "SubpConfig":
        """This config with start and end as epochs of a training of `epochs`; ConfigError if that ends before the sparsity is there."""
        if self.end < 1:
            return replace(self, start=self.start * epochs, end=self.end * epochs)
        if self.end >= epochs:
            raise ConfigError(f"SubpConfig: the sparsity grows until epoch {self.end:g} of {epochs}; an end below that is accepted.")
        return self
