"""What a training leaves beside its model: a CSV line an epoch, a JSON report and a plot."""

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subpc.files import replacing, write_whole

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
    left.set(xlabel="epoch", ylabel="top-1, %")
    left.set_title(title, parse_math=False)
    left.yaxis.label.set_color("tab:blue")
    right = left.twinx()
    right.plot(numbers, [100 * info.sparsity for info in epochs], color="tab:orange")
    right.set(ylabel="pruned blocks, %", ylim=(0, 100))
    right.yaxis.label.set_color("tab:orange")
    with replacing(path) as file:
        canvas.print_png(file)  # type: ignore[no-untyped-call]
    return True
