"""A data-free compression as text: a table of the layers, the search if there was one, and what the
file takes."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from subpc.algorithms.registry import METHODS
from subpc.cli.tables import new_table
from subpc.compression.strength_search import setting_words

if TYPE_CHECKING:
    from rich.table import Table

    from subpc.algorithms.report import DataFreeReport, LayerResult

Show = Callable[..., None]
# Above this float32 has no more digits.
_EXACT_DB = 140.0


def show_report(report: "DataFreeReport", show: Show) -> None:
    """Print everything."""
    show(layer_table(report))
    if report.search:
        show(search_table(report.search), *search_lines(report.search))
    show(f"{summary(report)}; images used: {report.inputs}")
    show(size_line(report), *(f"note: {note}" for note in report.notes))


def layer_table(report: "DataFreeReport") -> "Table":
    """One row a layer; columns that say nothing about any layer are left out."""
    columns = [
        column
        for column in _COLUMNS
        if any(column[1](layer) for layer in report.layers) or column[0] == "layer"
    ]
    table = new_table(*(title for title, _ in columns))
    for layer in report.layers:
        table.add_row(*(cell(layer) for _, cell in columns))
    return table


def _channels(layer: "LayerResult") -> str:
    return f"{layer.kept}/{layer.filters}" if layer.kept < layer.filters else str(layer.filters)


def _error(value: float, layer: "LayerResult") -> str:
    return f"{value:.3f}" if layer.error_before or layer.error_after else ""


def _coefficients(layer: "LayerResult") -> str:
    low, high = layer.coefficients
    return "" if (low, high) == (1, 1) else f"{low:.2f} to {high:.2f}"


def _ratio(layer: "LayerResult") -> str:
    if layer.snr is None:
        return ""
    return "exact" if layer.snr >= _EXACT_DB else f"{layer.snr:.1f}"


_COLUMNS: tuple[tuple[str, Callable[["LayerResult"], str]], ...] = (
    ("layer", lambda layer: layer.name),
    ("channels", _channels),
    ("bits", lambda layer: str(layer.bits)),
    ("zeros", lambda layer: f"{layer.sparsity:.0%}" if layer.sparsity else ""),
    ("error before", lambda layer: _error(layer.error_before, layer)),
    ("after", lambda layer: _error(layer.error_after, layer)),
    ("coefficients", _coefficients),
    ("SNR dB", _ratio),
    ("kB", lambda layer: f"{layer.bytes / 1e3:.1f}"),
    ("why", lambda layer: layer.reason),
)


def summary(report: "DataFreeReport") -> str:
    """What was done, in a line: channels, zeros, widths."""
    layers = report.layers
    parts = METHODS[report.method].summary(layers)
    widths = sorted({layer.bits for layer in layers})
    if widths != [32]:
        parts.append(
            ", ".join(
                f"{sum(layer.bits == width for layer in layers)} layers at {width} bits"
                for width in widths
            )
        )
    return "; ".join(parts)


def size_line(report: "DataFreeReport") -> str:
    """The file's bytes, and what they are."""
    weights = sum(layer.bytes for layer in report.layers)
    rest, names = report.bytes - weights, report.file_bytes - report.bytes
    parts = {
        "layers": weights,
        "batch norms and the like": rest,
        "names, settings and report": names,
    }
    return f"{size(report.file_bytes)} on disk: " + ", ".join(
        f"{what} {size(n)}" for what, n in parts.items()
    )


def size(count: int) -> str:
    """`12.3 kB`, `4.56 MB`."""
    return f"{count / 1e6:.2f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def search_table(search: dict[str, Any]) -> "Table":
    """What was tried."""
    table = new_table("setting", "layers left alone", "accuracy %", "weights kB", "allowed")
    for trial in search["trials"]:
        alone = str(trial["left_alone"]) if trial["left_alone"] else ""
        facts = (
            f"{trial['accuracy']:.2f}",
            f"{trial['bytes'] / 1e3:.1f}",
            "yes" if trial["within"] else "no",
        )
        table.add_row(trial["setting"], alone, *facts)
    return table


def search_lines(search: dict[str, Any]) -> list[str]:
    """The result of a search."""
    before, after = search["accuracy_before"], search["accuracy_after"]
    setting = setting_words(search["setting"]) or "the gentlest setting"
    allowed = (
        f"{search['max_drop']:g} {'point was' if search['max_drop'] == 1 else 'points were'}"
        " allowed"
    )
    lines = [f"chosen: {setting}; accuracy {after:.2f} % instead of {before:.2f} %, {allowed}"]
    alone = search["left_alone"]
    return lines + ([f"backed off in {len(alone)} layers: {', '.join(alone)}"] if alone else [])
