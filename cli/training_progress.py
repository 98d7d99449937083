"""What a training shows while it runs: a bar on a terminal, a line an epoch elsewhere, nothing with
--json."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from subpc.cli.printing import complain
from subpc.training.process_group import leads

if TYPE_CHECKING:
    from subpc.algorithms.subp.train_config import EpochInfo

OnEpoch = Callable[[Any], None]
OnStep = Callable[[int, int, int, float], None]


@contextmanager
def training_progress(epochs: int, *, quiet: bool) -> Iterator[tuple[OnEpoch, OnStep | None]]:
    """Gives what to call after each of the `epochs` and after some steps. Processes that do not
    lead their team are silent."""
    if quiet or not leads():
        yield lambda epochs: None, None
    elif sys.stderr.isatty():
        with _bar(epochs) as calls:
            yield calls
    else:
        yield lambda epochs: complain(epoch_line(epochs[-1])), None


def epoch_line(info: "EpochInfo") -> str:
    """One epoch as a line of a log."""
    facts = (
        f"loss {info.loss:.4f}, top-1 {info.top1:.2f} %, {info.sparsity:.1%} pruned,"
        f" {info.seconds:.1f} s"
    )
    return f"epoch {info.epoch}: {facts}"


@contextmanager
def _bar(epochs: int) -> Iterator[tuple[OnEpoch, OnStep]]:
    """One bar over the whole training, so that the time left is that of all of it."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    text = (
        "epoch {task.fields[epoch]}/{task.fields[epochs]}  loss {task.fields[loss]:.4f} "
        " {task.fields[last]}"
    )
    columns = (
        TextColumn(text),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(
            "training", total=None, epoch=0, epochs=epochs, loss=0.0, last="starting"
        )

        def on_step(epoch: int, done: int, steps: int, loss: float) -> None:
            bar.update(
                task,
                completed=epoch * steps + done,
                total=epochs * steps,
                epoch=epoch + 1,
                loss=loss,
            )

        def on_epoch(infos: Any) -> None:
            info = infos[-1]
            bar.console.print(epoch_line(info), highlight=False, markup=False)
            bar.update(task, last=f"top-1 {info.top1:.2f} %  {info.sparsity:.1%} pruned")

        yield on_epoch, on_step
