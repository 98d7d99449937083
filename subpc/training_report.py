"""What a training leaves beside its model: a CSV line an epoch, a JSON report and a plot."""

import csv
import io
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subpc.errors import ModelFileError

if TYPE_CHECKING:
    from subpc.algorithms.subp.train_config import EpochInfo

COLUMNS = ("epoch", "loss", "top1", "sparsity", "seconds")


def write_csv(path: Path, epochs: "tuple[EpochInfo, ...]") -> None:
    """One line an epoch, the whole file anew: a training that was resumed has no line twice."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(info.to_dict() for info in epochs)
    write_whole(path, text.getvalue())


def write_json(path: Path, report: dict[str, Any]) -> None:
    """The report, indented."""
    write_whole(path, json.dumps(report, indent=2) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Through a temporary name, so that readers see the old text or the new; ModelFileError where the disk refuses."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise ModelFileError(f"{path} cannot be written: {error}. Free space, or choose another place.") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_plot(path: Path, epochs: "tuple[EpochInfo, ...]", title: str) -> bool:
    """Accuracy and sparsity over the epochs as a PNG; False where matplotlib is not installed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(7, 4), layout="constrained")
    canvas, left = FigureCanvasAgg(figure), figure.add_subplot()
    numbers = [info.epoch + 1 for info in epochs]
    left.plot(numbers, [info.top1 for info in epochs], color="tab:blue", marker="o", markersize=3)
    left.set(xlabel="epoch", ylabel="top-1, %", title=title)
    left.yaxis.label.set_color("tab:blue")
    right = left.twinx()
    right.plot(numbers, [100 * info.sparsity for info in epochs], color="tab:orange")
    right.set(ylabel="pruned blocks, %", ylim=(0, 100))
    right.yaxis.label.set_color("tab:orange")
    canvas.print_png(str(path))  # type: ignore[no-untyped-call]
    return True
