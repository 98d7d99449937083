"""Training on pictures in memory: dense, SUBP, and one-shot 1xN pruning with fine-tuning at the same total of epochs."""

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from subpc.algorithms.compressed import MAX_BYTES, save_atomic
from subpc.algorithms.fashion_mnist import MEAN, STD
from subpc.algorithms.subp.config import SubpConfig
from subpc.algorithms.subp.subp import Subp
from subpc.errors import ConfigError, ModelFileError, SubpcError
from subpc.report import Record

METHODS = ("dense", "subp", "oneshot", "oneshot-layerwise")
Data = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Record):
    """How to train; ConfigError with the reason for values that do not fit together.

    method: "oneshot" trains dense for half the epochs, prunes uniformly to subp.sparsity, and fine-tunes with fixed masks; the
    learning rate falls from `rate` to 0 as a cosine over all epochs. weight_decay: of parameters with two or more dimensions;
    crop: pixels that pictures are padded by before a random crop; mean, std: of the pixels, scaled to 0 to 1.
    """

    method: str = "subp"
    subp: SubpConfig = field(default_factory=SubpConfig)
    epochs: int = 250
    batch: int = 128
    rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    crop: int = 2
    mean: float = MEAN
    std: float = STD
    seed: int = 0

    def __post_init__(self) -> None:
        late = self.method == "subp" and self.subp.end >= self.epochs
        rules = (
            (self.method in METHODS, f"method is {self.method!r}; accepted: {METHODS}"),
            (self.epochs >= 1, f"epochs is {self.epochs}; 1 or more is accepted"),
            (not late, f"the sparsity grows until epoch {self.subp.end} of {self.epochs}; subp.end below epochs is accepted"),
            (self.method[:7] != "oneshot" or self.epochs >= 2, "one-shot pruning needs 2 epochs or more"),
            (self.batch >= 2, f"batch is {self.batch}; 2 or more is accepted"),
            (0 < self.rate < float("inf"), f"rate is {self.rate}; a positive number is accepted"),
            (0 <= self.momentum < 1, f"momentum is {self.momentum}; at least 0 and less than 1 is accepted"),
            (0 <= self.weight_decay < 1, f"weight_decay is {self.weight_decay}; at least 0 and less than 1 is accepted"),
            (0 <= self.label_smoothing < 1, f"label_smoothing is {self.label_smoothing}; at least 0 and less than 1 is accepted"),
            (0 <= self.crop <= 64, f"crop is {self.crop}; 0 to 64 is accepted"),
            (0 < self.std < float("inf"), f"std is {self.std}; a positive number is accepted"),
            (0 <= self.seed < 1 << 20, f"seed is {self.seed}; whole numbers from 0 to {(1 << 20) - 1} are accepted"),
        )
        for accepted, message in rules:
            if not accepted:
                raise ConfigError(f"TrainConfig: {message}.")


@dataclass(frozen=True, kw_only=True)
class EpochInfo(Record):
    """One epoch: mean loss of training, share of test pictures put into their class in per cent, share of pruned blocks."""

    epoch: int
    loss: float
    top1: float
    sparsity: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class History(Record):
    """What a training did."""

    epochs: tuple[EpochInfo, ...] = ()
    left_dense: dict[str, str] = field(default_factory=dict)


def train(
    model: nn.Module,
    data: Data,
    test: Data,
    config: TrainConfig,
    *,
    checkpoint: Path | None = None,
    on_epoch: Callable[[EpochInfo], None] | None = None,
) -> History:
    """Train `model` in place; at the end it is a plain module whose pruned blocks are zero.

    data, test: pictures (n, c, h, w) uint8 and labels (n) int64. `checkpoint` is written after every epoch, before `on_epoch` is
    called; where it exists, training goes on from it to the same result, bit by bit on one machine. Raises ConfigError for data that
    cannot be trained on, ModelFileError for a checkpoint that is damaged or of another config, SubpcError for a loss that is not
    finite (the checkpoint of the last good epoch stays).
    """
    _check_data(data, config)
    subp = Subp(model, _masking(config)) if config.method != "dense" else None
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = _optimizer(model, config)
    history = History(left_dense=subp.left_dense if subp else {})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        if checkpoint is not None and checkpoint.exists():
            history = dataclasses.replace(history, epochs=_resume(checkpoint, model, optimizer, config))
        for epoch in range(len(history.epochs), config.epochs):
            start = time.perf_counter()
            _renew_masks(subp, epoch, config)
            loss = _run_epoch(model, data, optimizer, epoch, config)
            sparsity, top1 = subp.sparsity if subp else 0.0, accuracy(model, test, config)
            info = EpochInfo(epoch=epoch, loss=loss, top1=top1, sparsity=sparsity, seconds=time.perf_counter() - start)
            history = dataclasses.replace(history, epochs=(*history.epochs, info))
            if checkpoint is not None:
                _save(checkpoint, model, optimizer, config, history)
            if on_epoch is not None:
                on_epoch(info)
    if subp is not None:
        subp.finalize()
    model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return history


@torch.no_grad()
def accuracy(model: nn.Module, test: Data, config: TrainConfig) -> float:
    """Share of pictures put into their class, in per cent; leaves the model in eval mode."""
    model.eval()
    right = 0
    for images, labels in zip(test[0].split(500), test[1].split(500), strict=True):
        right += int((model(_scaled(images, config)).argmax(1) == labels).sum())
    return 100 * right / len(test[1])


def augment(images: torch.Tensor, crop: int, generator: torch.Generator) -> torch.Tensor:
    """Each picture of (n, c, h, w) padded with `crop` zeros, cut to (h, w) at a random place, and mirrored with probability 1/2."""
    count, _, height, width = images.shape
    tops, lefts = torch.randint(0, 2 * crop + 1, (2, count, 1), generator=generator)
    mirrored = torch.rand(count, 1, generator=generator) < 0.5
    columns = torch.arange(width)
    rows = tops + torch.arange(height)
    columns = lefts + torch.where(mirrored, columns.flip(0), columns)
    padded = F.pad(images, (crop, crop, crop, crop)).permute(0, 2, 3, 1)
    return padded[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _check_data(data: Data, config: TrainConfig) -> None:
    images, labels = data
    if images.dim() != 4 or images.dtype != torch.uint8 or len(images) != len(labels):
        raise ConfigError(
            f"Pictures {tuple(images.shape)} {images.dtype} with {len(labels)} labels; accepted: (n, c, h, w) uint8, n labels."
        )
    if len(labels) < config.batch:
        raise ConfigError(f"{len(labels)} pictures do not fill a batch of {config.batch}; choose a smaller batch, or more pictures.")
    if len(labels.unique()) < 2:
        raise ConfigError(f"All {len(labels)} pictures are of class {int(labels[0])}; two classes or more can be trained on.")


def _masking(config: TrainConfig) -> SubpConfig:
    if config.method == "subp":
        return config.subp
    return dataclasses.replace(config.subp, criterion="l1", soft_decay=0.0)


def _renew_masks(subp: Subp | None, epoch: int, config: TrainConfig) -> None:
    if subp is not None and config.method == "subp":
        subp.step_epoch(epoch)
    elif subp is not None and epoch == config.epochs // 2:
        subp.prune_once(layerwise=config.method == "oneshot-layerwise")


def _optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=config.rate, momentum=config.momentum)


def _scaled(images: torch.Tensor, config: TrainConfig) -> torch.Tensor:
    scaled = (images.float() / 255 - config.mean) / config.std
    return scaled.contiguous(memory_format=torch.channels_last)


def _run_epoch(model: nn.Module, data: Data, optimizer: torch.optim.Optimizer, epoch: int, config: TrainConfig) -> float:
    images, labels = data
    generator = torch.Generator().manual_seed((config.seed << 20) + epoch)  # an epoch's batches do not depend on the epochs before
    steps = len(labels) // config.batch
    order = torch.randperm(len(labels), generator=generator)[: steps * config.batch]
    model.train()
    total = 0.0
    for step, batch in enumerate(order.split(config.batch)):
        share = (epoch + step / steps) / config.epochs
        for group in optimizer.param_groups:
            group["lr"] = config.rate * (1 + math.cos(math.pi * share)) / 2
        optimizer.zero_grad()
        pictures = _scaled(augment(images[batch], config.crop, generator), config)
        loss = F.cross_entropy(model(pictures), labels[batch], label_smoothing=config.label_smoothing)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise SubpcError(f"The loss is {value} in step {step} of epoch {epoch}. Lower the rate; the last good checkpoint is untouched.")
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += value
    return total / steps


def _save(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, config: TrainConfig, history: History) -> None:
    content = {
        "subp_checkpoint": 1,
        "config": config.to_dict(),
        "epochs": [info.to_dict() for info in history.epochs],
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "rng": torch.get_rng_state(),
    }
    save_atomic(path, content)


def _resume(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, config: TrainConfig) -> tuple[EpochInfo, ...]:
    content = _read(path)
    if content["config"] != config.to_dict():
        wanted, found = config.to_dict(), content["config"]
        other = sorted(key for key in wanted if not isinstance(found, dict) or found.get(key) != wanted[key])
        raise ModelFileError(f"{path.name} is a checkpoint of another config: {other} differ.\nPass the same settings, or another path.")
    try:
        epochs = tuple(EpochInfo.from_dict(entry) for entry in content["epochs"])
        model.load_state_dict(content["model"])
        optimizer.load_state_dict(content["optimizer"])
        torch.set_rng_state(content["rng"])
    except Exception as error:
        raise ModelFileError(f"{path.name} does not fit this model: {str(error).splitlines()[0][:120]}") from error
    return epochs


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ModelFileError(f"{path.name} has more than {MAX_BYTES >> 30} GiB; it is not a checkpoint.")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except ModelFileError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise ModelFileError(f"{path.name} is not a checkpoint, or is damaged: {reason}") from error
    keys = {"subp_checkpoint", "config", "epochs", "model", "optimizer", "rng"}
    if not isinstance(content, dict) or set(content) != keys or content["subp_checkpoint"] != 1:
        raise ModelFileError(f"{path.name} is not a checkpoint of this version of subpc. Pass another path, or remove the file.")
    return content
