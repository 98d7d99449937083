"""Distillation as a step of a compression: images, progress, and what the report says of it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from subpc.algorithms.distill.config import DistillConfig
from subpc.images.unlabelled import Given
from subpc.progress import Progress

if TYPE_CHECKING:
    from torch import nn

    from subpc.algorithms.method import Compressed

# Read at most: more are seen too seldom in the steps that a few minutes have.
MAX_IMAGES = 2048
_SUFFIX = ".distill"


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """How a compressed network is to learn from the float one.

    source: a folder of images without labels, `fashion-mnist[:FOLDER]`, or how many images to
    generate from the network.
    """

    source: str
    config: DistillConfig

    @property
    def generated(self) -> int | None:
        """How many images are to be generated; None where a folder is named."""
        return int(self.source) if self.source.isdecimal() else None


def checkpoint_of(output: Path) -> Path:
    """Beside the output while a distillation is unfinished."""
    return output.with_name(output.name + _SUFFIX)


def distilled(
    model: "nn.Module",
    result: "Compressed",
    given: Given,
    config: DistillConfig,
    progress: Progress,
    checkpoint: Path | None = None,
) -> "Compressed":
    """`result` after learning from `model` on the given images, which are there; what it was where
    it learnt nothing. Raises SubpcError."""
    from subpc.algorithms.distill.distill import distill

    assert given.images is not None

    def tell(loss: float, done: int, steps: int, left: float) -> None:
        progress(f"learning, loss {loss:.4f}, {_time(left)} left", done, steps)

    found = distill(
        model,
        result.model,
        result.codes,
        given.images,
        config,
        checkpoint=checkpoint,
        on_step=tell,
    )
    said = (
        f"learnt from the float network in {found.steps} steps on {given.label} images: loss on"
        f" those kept back {found.before:.4f}, then {found.after:.4f}"
    )
    notes = (said, *([found.note] if found.note else []))
    report = replace(result.report, notes=(*result.report.notes, *notes))
    return replace(result, model=found.model, codes=found.codes, report=report)


def _time(seconds: float) -> str:
    minutes = int(seconds) // 60
    return f"{minutes} min" if minutes else f"{int(seconds)} s"
