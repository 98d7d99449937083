"""Training: dense, SUBP, and one-shot 1xN pruning with fine-tuning at the same total of epochs; on
one process or a team of them."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from subpc.algorithms.subp.block_masks import Subp
from subpc.algorithms.subp.checkpoint import load_checkpoint, save_checkpoint
from subpc.algorithms.subp.images import Batch, Images
from subpc.algorithms.subp.teacher import Teacher
from subpc.algorithms.subp.team import Team
from subpc.algorithms.subp.train_config import EpochInfo, History, TrainConfig
from subpc.errors import ConfigError, SubpcError

OnEpoch = Callable[[tuple[EpochInfo, ...]], None]
OnStep = Callable[[int, int, int, float], None]
# Steps between two readings of the loss: each waits for a device that computes in the background.
_LOOK = 16


def train(
    model: nn.Module,
    data: Images,
    test: Images,
    config: TrainConfig,
    *,
    teacher: nn.Module | None = None,
    checkpoint: Path | None = None,
    device: str = "cpu",
    on_epoch: OnEpoch | None = None,
    on_step: OnStep | None = None,
) -> History:
    """Train `model` in place; at the end it is a plain module on the CPU whose pruned blocks are
    zero.

    `teacher` takes the same images and gives scores for the same classes (see Teacher).
    `checkpoint` is written after every epoch, before `on_epoch` is called with all epochs so far;
    where it exists, training goes on from it to the same result, bit by bit on one machine.
    `on_step` is called with (epoch, steps done, steps of the epoch, loss). Where torch.distributed
    is initialised, every process has to call this with the same model, and gets its share of each
    batch. Raises ConfigError for data that cannot be trained on, ModelFileError for a checkpoint
    that is damaged or of another config, SubpcError for a loss that is not finite (the checkpoint
    of the last good epoch stays).
    """
    _check(data, test, config)
    training = _Training(model, data, test, config, device, on_step)
    training.teacher = _teacher(model, teacher, test, config, device)
    return training.run(checkpoint, on_epoch)


class _Training:
    """The state of one call of `train`."""

    def __init__(
        self,
        model: nn.Module,
        data: Images,
        test: Images,
        config: TrainConfig,
        device: str,
        on_step: OnStep | None,
    ) -> None:
        self.data, self.test, self.config, self.device, self.on_step = (
            data,
            test,
            config,
            device,
            on_step,
        )
        self.team = Team.current()
        self.model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.subp = _masks(self.model, config)
        self.optimizer = _optimizer(self.model, config)
        self.steps = len(data.labels) // config.batch
        self.teacher: Teacher | None = None

    def run(self, checkpoint: Path | None, on_epoch: OnEpoch | None) -> History:
        """All epochs that `checkpoint` does not have yet."""
        epochs: tuple[EpochInfo, ...] = ()
        with torch.random.fork_rng(devices=[]):
            if checkpoint is not None and checkpoint.exists():
                epochs = load_checkpoint(checkpoint, self.model, self.optimizer, self.config)
            called = self.team.wrap(self.model)
            for epoch in range(len(epochs), self.config.epochs):
                epochs = (*epochs, self._epoch(called, epoch))
                if checkpoint is not None and self.team.leads:
                    save_checkpoint(checkpoint, self.model, self.optimizer, self.config, epochs)
                if on_epoch is not None and self.team.leads:
                    on_epoch(epochs)
                self.team.wait()
        if self.subp is not None:
            self.subp.finalize()
        self.model.to("cpu", memory_format=torch.contiguous_format)
        history = History(epochs=epochs, skipped={**self.data.skipped, **self.test.skipped})
        return (
            dataclasses.replace(
                history, pruned=tuple(self.subp.layers), left_dense=self.subp.left_dense
            )
            if self.subp
            else history
        )

    def _epoch(self, called: nn.Module, epoch: int) -> EpochInfo:
        start = time.perf_counter()
        seed = (
            self.config.seed << 20
        ) + epoch  # an epoch's draws do not depend on the epochs before
        torch.manual_seed(seed * self.team.size + self.team.rank)
        called.train()
        total, looked = torch.zeros((), dtype=torch.float64, device=self.device), 0.0
        for step, (images, labels) in enumerate(self._batches(seed)):
            self._renew_masks(epoch, step)
            total += self._step(called, images, labels, epoch + step / self.steps)
            if step % _LOOK == _LOOK - 1 or step == self.steps - 1:
                looked = self._look(total, epoch, step)
        loss = (
            float(self.team.sums(torch.tensor(looked, dtype=torch.float64, device=self.device)))
            / self.team.size
        )
        sparsity = self.subp.sparsity if self.subp else 0.0
        top1 = accuracy(self.model, self.test, device=self.device)
        return EpochInfo(
            epoch=epoch,
            loss=loss,
            top1=top1,
            sparsity=sparsity,
            seconds=time.perf_counter() - start,
        )

    def _batches(self, seed: int) -> Iterator[Batch]:
        order = torch.randperm(len(self.data.labels), generator=torch.Generator().manual_seed(seed))
        batches = torch.split(order[: self.steps * self.config.batch], self.config.batch)
        return self.data.training([self.team.share(batch) for batch in batches], seed)

    def _step(
        self, called: nn.Module, images: torch.Tensor, labels: torch.Tensor, time: float
    ) -> torch.Tensor:
        """One update at `time`, in epochs; returns the loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(time, self.config)
        self.optimizer.zero_grad()
        moved = images.to(self.device, memory_format=torch.channels_last, non_blocking=True)
        with torch.autocast(self.device.split(":")[0], torch.bfloat16, enabled=self.config.amp):
            scores = called(moved)
            loss = F.cross_entropy(
                scores, labels.to(self.device), label_smoothing=self.config.label_smoothing
            )
            if self.teacher is not None:
                loss = self.teacher.loss(moved, scores, loss)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss.detach()

    def _look(self, total: torch.Tensor, epoch: int, step: int) -> float:
        """The mean loss of the epoch so far; SubpcError if it is not finite."""
        mean = float(total) / (step + 1)
        if not math.isfinite(mean):
            raise SubpcError(
                f"The loss is {mean} by step {step} of epoch {epoch}; the checkpoint of the last"
                f" good epoch is kept.\nLower the rate (now {self.config.rate})."
            )
        if self.on_step is not None and self.team.leads:
            self.on_step(epoch, step + 1, self.steps, mean)
        return mean

    def _renew_masks(self, epoch: int, step: int) -> None:
        updates, one_shot = self.config.mask_updates, self.config.one_shot
        if self.subp is not None and one_shot and (epoch, step) == (self.config.cut, 0):
            self.subp.prune_once(layerwise=self.config.method == "oneshot-layerwise")
        due = step * updates // self.steps
        if (
            self.subp is not None
            and not one_shot
            and (step == 0 or (step - 1) * updates // self.steps < due)
        ):
            self.subp.step_epoch(epoch * updates + due)


@torch.no_grad()
def accuracy(model: nn.Module, test: Images, *, device: str = "cpu") -> float:
    """Share of test images (n, c, h, w) put into their class, in per cent, over the whole team.

    Leaves the model in eval mode.
    """
    model.eval()
    team, right, seen = Team.current(), 0, 0
    for images, labels in test.plain(team.share(torch.arange(len(test.labels)))):
        scores = model(images.to(device, memory_format=torch.channels_last))
        right += int((scores.argmax(1).cpu() == labels).sum())
        seen += len(labels)
    sums = team.sums(torch.tensor([right, seen], dtype=torch.float64, device=device)).tolist()
    return 100 * float(sums[0]) / max(float(sums[1]), 1.0)


def learning_rate(time: float, config: TrainConfig) -> float:
    """The rate at `time`, in epochs from 0: a cosine to 0, or two with a `finetune_rate`."""
    begin, end, first = 0, config.epochs, config.rate
    if config.finetune_rate is not None and config.one_shot and config.cut > 0:
        before = time < config.cut
        begin, end, first = (
            (0, config.cut, config.rate)
            if before
            else (config.cut, config.epochs, config.finetune_rate)
        )
    return first * (1 + math.cos(math.pi * (time - begin) / (end - begin))) / 2


def _check(data: Images, test: Images, config: TrainConfig) -> None:
    count = len(data.labels)
    if count < config.batch:
        raise ConfigError(
            f"{count} images do not fill a batch of {config.batch}; choose a smaller batch, or more"
            " images."
        )
    if len(torch.unique(data.labels)) < 2:
        raise ConfigError(
            f"All {count} images are of class {int(data.labels[0])}; two classes or more can be"
            " trained on."
        )
    if len(test.labels) == 0:
        raise ConfigError("There are no test images; one or more are needed to measure accuracy.")
    if config.batch % Team.current().size:
        raise ConfigError(
            f"batch is {config.batch}; a multiple of the {Team.current().size} processes is"
            " accepted."
        )


def _teacher(
    model: nn.Module, teacher: nn.Module | None, test: Images, config: TrainConfig, device: str
) -> Teacher | None:
    if teacher is None:
        return None
    (image, _), *_ = test.plain(torch.tensor([0]))
    image = image.to(device)
    checked = Teacher(
        teacher,
        share=config.teacher_share,
        temperature=config.teacher_temperature,
        device=device,
    )
    with torch.no_grad():
        checked.check(image, model.eval()(image).shape[1])
    return checked


def _masks(model: nn.Module, config: TrainConfig) -> Subp | None:
    """Epochs of the config as the updates that Subp counts; no decay for masks that are never drawn
    again."""
    if config.method == "dense":
        return None
    if config.one_shot:
        return Subp(model, dataclasses.replace(config.subp, start=0.0, end=0.0, soft_decay=0.0))
    updates = config.mask_updates
    scale = 1 if config.subp.in_fractions else updates
    masks = dataclasses.replace(
        config.subp, start=config.subp.start * scale, end=config.subp.end * scale
    )
    return Subp(model, masks, config.epochs * updates)


def _optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=config.rate, momentum=config.momentum)
