"""Distillation without labels: the compressed network learns to give, layer by layer and at its
end, what the float network gives for cuts of a few images.

The closed forms come first, this goes on from them. What is compared is the scores (Hinton, Vinyals
and Dean, 2015, arXiv 1503.02531) and the outputs of the layers in between, as FitNets (arXiv
1412.6550) and BRECQ (arXiv 2102.05426) have it, all of them at once.
"""

import copy
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from subpc.algorithms.distill.answers import Answers, apart, compared_layers
from subpc.algorithms.distill.checkpoint import Checkpoint
from subpc.algorithms.distill.config import DistillConfig
from subpc.algorithms.distill.cuts import cuts
from subpc.algorithms.distill.student import Student
from subpc.algorithms.network.checked_copy import checked_copy
from subpc.algorithms.numerics.quantizers import Quantized
from subpc.errors import ConfigError, SubpcError

# Every eighth image is kept back, to see whether what was learnt holds for others.
_KEPT_BACK = 8
# Pixels of a batch that run at once: larger batches are added up.
_AT_ONCE = 32 * 224 * 224
# The first share of the steps, in which the rate rises; steps that are timed; the norm of a
# gradient at most; how many levels a quantized weight can move in all.
_WARM, _TIMED, _CLIP, _LEVELS = 0.05, 3, 1.0, 2.0

# (loss, steps done, steps in all, seconds left)
OnStep = Callable[[float, int, int, float], None]


@dataclass(frozen=True, kw_only=True)
class Distilled:
    """The network that has learnt, its codes, and what came of it: the losses on images that were
    kept back, before and after.

    learnt: false where the loss on those did not fall, and the network is the one from before.
    """

    model: nn.Module
    codes: dict[str, Quantized] = field(default_factory=dict)
    steps: int = 0
    before: float = 0.0
    after: float = 0.0
    learnt: bool = True
    note: str = ""


def distill(
    teacher: nn.Module,
    model: nn.Module,
    codes: Mapping[str, Quantized],
    images: torch.Tensor,
    config: DistillConfig,
    *,
    checkpoint: Path | None = None,
    on_step: OnStep | None = None,
) -> Distilled:
    """What `model`, a compressed copy of `teacher`, becomes on `images` (p, c, h, w), normalised,
    without labels; neither network is changed.

    codes: {layer: its quantized weight}; levels and scales stay, and so do blocks of zeros.
    checkpoint: written once a minute; where it is there, learning goes on from it. A loss that is
    no number ends the learning with the state before. Raises ConfigError for images that are too
    few, or networks whose result is not one tensor of scores.
    """
    back = torch.arange(len(images)) % _KEPT_BACK == 0
    learnt_from, kept_back = images[~back], images[back]
    if len(learnt_from) < 2:
        raise ConfigError(
            f"{len(images)} images are too few to learn from; 4 or more are accepted, 80 are good."
        )
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        return _Learning(teacher, model, codes, config, on_step).run(
            learnt_from, kept_back, checkpoint
        )


class _Learning:
    def __init__(
        self,
        teacher: nn.Module,
        model: nn.Module,
        codes: Mapping[str, Quantized],
        config: DistillConfig,
        on_step: OnStep | None,
    ) -> None:
        self.teacher = checked_copy(teacher).eval().requires_grad_(False)
        self.before, self.codes = model, codes
        self.student = Student(copy.deepcopy(model), codes)
        names = compared_layers(self.teacher, self.before)
        self.own = Answers(self.teacher, names)
        self.changed = Answers(self.student.model, names)
        self.config, self.on_step = config, on_step
        self.optimizer = torch.optim.Adam(self.student.groups(), lr=config.rate)

    def run(
        self, images: torch.Tensor, kept_back: torch.Tensor, checkpoint: Path | None
    ) -> Distilled:
        state = Checkpoint(checkpoint, self.student.model, self.optimizer, self.config)
        with self.own.kept(), self.changed.kept():
            before = self._loss_of(kept_back)
            done, steps = state.load()
            note = ""
            try:
                done = self._learn(images, state, done, steps or self.config.steps)
            except _NotANumber as error:
                done, note = state.restore(), str(error)
            after = self._loss_of(kept_back)
        found = self.student.finish()
        state.remove()
        if not after < before:
            return Distilled(
                model=self.before,
                codes=dict(self.codes),
                steps=done,
                before=before,
                after=after,
                learnt=False,
                note=note or "the loss on images kept back did not fall: nothing is changed",
            )
        return Distilled(
            model=self.student.model,
            codes=found,
            steps=done,
            before=before,
            after=after,
            note=note,
        )

    def _learn(self, images: torch.Tensor, state: Checkpoint, done: int, steps: int) -> int:
        """Steps from `done` on, as many in all as the minutes allow; returns how many that are."""
        begin, first = time.monotonic(), done
        while done < steps:
            self._rate(done, steps)
            loss = self._step(images, done)
            if not math.isfinite(loss):
                raise _NotANumber(f"the loss was {loss} at step {done}: the state before is kept")
            done += 1
            each = (time.monotonic() - begin) / (done - first)
            if done == _TIMED and first == 0:
                steps = max(_TIMED, min(steps, int(self.config.minutes * 60 / each)))
            state.keep(done, steps)
            if self.on_step is not None:
                self.on_step(loss, done, steps, each * (steps - done))
        return done

    def _rate(self, done: int, steps: int) -> None:
        """A cosine after a short rise. Quantized weights move by levels, however small those are:
        all steps together are as long as _LEVELS of them."""
        share = done / steps
        now = min(1.0, (share + 1e-3) / _WARM) * (1 + math.cos(math.pi * share)) / 2
        for group in self.optimizer.param_groups:
            width = group["width"]
            group["lr"] = now * (2 * _LEVELS * width / steps if width else self.config.rate)

    def _step(self, images: torch.Tensor, step: int) -> float:
        """One update, from cuts that depend on the seed and the step alone; returns the loss."""
        draw = torch.Generator().manual_seed((self.config.seed << 32) + step)
        chosen = torch.randint(len(images), (self.config.batch,), generator=draw)
        self.optimizer.zero_grad()
        total = 0.0
        for part in torch.split(chosen, self._at_once(images)):
            shown = cuts(
                images,
                part,
                draw,
                smallest=self.config.smallest_crop,
                mirror=self.config.mirror,
            )
            loss = self._loss(shown) * (len(part) / len(chosen))
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        if math.isfinite(total):
            torch.nn.utils.clip_grad_norm_(self.student.model.parameters(), _CLIP)
            self.optimizer.step()
        return total

    def _loss(self, images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            taught = self.own(images)
        scores = self.changed(images)
        layers = {
            name: (own, self.changed.layers[name])
            for name, own in self.own.layers.items()
            if name in self.changed.layers
        }
        return apart(taught, scores, layers, self.config)

    @torch.no_grad()
    def _loss_of(self, images: torch.Tensor) -> float:
        parts = torch.split(images, self._at_once(images))
        losses = [float(self._loss(part)) * len(part) for part in parts]
        return sum(losses) / len(images)

    def _at_once(self, images: torch.Tensor) -> int:
        return max(1, min(self.config.batch, _AT_ONCE // math.prod(images.shape[2:])))


class _NotANumber(SubpcError):
    """The loss is infinite or not a number."""
