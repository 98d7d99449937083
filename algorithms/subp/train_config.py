"""How to train, and what a training did."""

from dataclasses import dataclass, field

from subpc.algorithms.subp.config import SubpConfig
from subpc.errors import ConfigError
from subpc.records import Record

METHODS = ("dense", "subp", "oneshot", "oneshot-layerwise")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Record):
    """How to train; ConfigError with the reason for values that do not fit together.

    method: "oneshot" trains dense until epoch `prune_epoch` (None: half of all), prunes uniformly
    to subp.sparsity by subp.criterion, and fine-tunes with fixed masks; "oneshot-layerwise" prunes
    each layer as a whole. The learning rate falls from `rate` to 0 as a cosine over all epochs;
    with a `finetune_rate`, one-shot methods reach 0 at `prune_epoch` and start again from there.
    batch: images of all processes together. mask_updates: times an epoch that SUBP renews its
    masks; 1 in the paper, whose trainings have 200 epochs, more keep the number of updates in a
    short one. weight_decay: of parameters with two or more dimensions.
    rearrange: sort the filters of pretrained weights by norm before they are pruned at epoch 0, as
    the 1xN paper offers. amp: bfloat16 autocast. teacher_share, teacher_temperature: see Teacher;
    of no effect without one.
    """

    method: str = "subp"
    subp: SubpConfig = field(default_factory=SubpConfig)
    epochs: int = 200
    batch: int = 128
    rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    label_smoothing: float = 0.1
    teacher_share: float = 0.9
    teacher_temperature: float = 4.0
    mask_updates: int = 1
    prune_epoch: int | None = None
    finetune_rate: float | None = None
    rearrange: bool = False
    amp: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        fine = self.finetune_rate
        rules = (
            (self.method in METHODS, f"method is {self.method!r}; accepted: {METHODS}"),
            (1 <= self.epochs <= 1 << 16, f"epochs is {self.epochs}; 1 to {1 << 16} is accepted"),
            (
                not self.one_shot or self.cut < self.epochs,
                (
                    f"prune_epoch is {self.cut} of {self.epochs} epochs; 0 to less than epochs is"
                    " accepted"
                ),
            ),
            (self.cut >= 0, f"prune_epoch is {self.cut}; 0 or more is accepted"),
            (self.batch >= 2, f"batch is {self.batch}; 2 or more is accepted"),
            (0 < self.rate < float("inf"), f"rate is {self.rate}; a positive number is accepted"),
            (
                fine is None or 0 < fine < float("inf"),
                f"finetune_rate is {fine}; a positive number is accepted",
            ),
            (
                0 <= self.momentum < 1,
                f"momentum is {self.momentum}; at least 0 and less than 1 is accepted",
            ),
            (
                0 <= self.weight_decay < 1,
                f"weight_decay is {self.weight_decay}; at least 0 and less than 1 is accepted",
            ),
            (
                0 <= self.label_smoothing < 1,
                (
                    f"label_smoothing is {self.label_smoothing}; at least 0 and less than 1 is"
                    " accepted"
                ),
            ),
            (
                0 < self.teacher_share <= 1,
                f"teacher_share is {self.teacher_share}; more than 0 and at most 1 is accepted",
            ),
            (
                0 < self.teacher_temperature <= 1000,
                (
                    f"teacher_temperature is {self.teacher_temperature}; more than 0 and at most"
                    " 1000 is accepted"
                ),
            ),
            (
                1 <= self.mask_updates <= 1000,
                f"mask_updates is {self.mask_updates}; 1 to 1000 is accepted",
            ),
            (
                not self.rearrange or (self.one_shot and self.cut == 0),
                "rearrange needs a one-shot method with prune_epoch 0",
            ),
            (
                0 <= self.seed < 1 << 20,
                f"seed is {self.seed}; whole numbers from 0 to {(1 << 20) - 1} are accepted",
            ),
        )
        for accepted, message in rules:
            if not accepted:
                raise ConfigError(f"TrainConfig: {message}.")
        if self.method == "subp":
            self.subp.resolved(self.epochs)

    @property
    def one_shot(self) -> bool:
        """Whether all pruning happens at one epoch."""
        return self.method.startswith("oneshot")

    @property
    def cut(self) -> int:
        """The epoch at whose start one-shot methods prune."""
        return self.epochs // 2 if self.prune_epoch is None else self.prune_epoch


@dataclass(frozen=True, kw_only=True)
class EpochInfo(Record):
    """One epoch: mean loss of training, share of test images put into their class in per cent,
    share of pruned blocks."""

    epoch: int
    loss: float
    top1: float
    sparsity: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class History(Record):
    """What a training did: its epochs, the layers that were pruned and those that were not with the
    reason, images skipped."""

    epochs: tuple[EpochInfo, ...] = ()
    pruned: tuple[str, ...] = ()
    left_dense: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
