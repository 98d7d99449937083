"""Reports as text tables."""

from typing import TYPE_CHECKING, Any

from subpc.cli.printing import cell
from subpc.library.report import FLOATS, INTEGERS

if TYPE_CHECKING:
    from rich.table import Table

    from subpc.library.report import CompileReport, LayerReport, Metadata
    from subpc.profiling.profile import LayerTime, Profile


def new_table(*columns: str) -> "Table":
    """A table whose first column is text and whose names in capitals or with units are numbers;
    cells are shown as they are."""
    from rich import box
    from rich.table import Table

    class PlainTable(Table):
        def add_row(self, *cells: Any, **options: Any) -> None:
            super().add_row(*(cell(value) for value in cells), **options)

    table = PlainTable(box=box.SIMPLE, pad_edge=False)
    for index, column in enumerate(columns):
        words = index == 0 or column in (
            "shape",
            "pattern",
            "computes",
            "kernel",
            "decision",
            "why",
            "version",
            "note",
            "class",
        )
        table.add_column(
            column,
            justify="left" if words else "right",
            no_wrap=column not in ("layer", "why"),
            overflow="fold",
        )
    return table


def layer_table(report: "CompileReport") -> "Table":
    """What was decided for each layer; the width of its weights in the model file where any has
    another than 32, and what it computes in where any computes integers."""
    packed = any(layer.bits != 32 for layer in report.layers)
    integers = report.metadata.precision != FLOATS
    table = new_table(
        "layer",
        "shape",
        "stride",
        "groups",
        *(["bits"] if packed else []),
        "pattern",
        "zeros",
        *(["computes", "MB"] if integers else []),
        "kernel",
        "gain",
        "why",
    )
    for layer in report.layers:
        shape, stride = "x".join(map(str, layer.shape)), "x".join(map(str, layer.stride))
        facts = [
            layer.name,
            shape,
            stride,
            str(layer.groups),
            *([str(layer.bits)] if packed else []),
        ]
        facts += [layer.pattern, f"{layer.sparsity:.0%}"]
        facts += [layer.precision, f"{layer.bytes_packed / 1e6:.2f}"] if integers else []
        table.add_row(*facts, layer.kernel, f"{layer.expected_gain:.1f}x", why(layer))
    return table


def why(layer: "LayerReport | LayerTime") -> str:
    """Why it is dense, and why it computes floats or integers."""
    floats = layer.why_float and f"{FLOATS}: {layer.why_float}"
    integers = layer.why_integers and f"{INTEGERS}: {layer.why_integers}"
    return "; ".join(filter(None, [layer.reason, floats, integers]))


def function_lines(metadata: "Metadata") -> list[str]:
    """One line for each entry point."""
    lines = []
    for function in metadata.functions:
        ins = ", ".join(f"{t.name} {t.dtype}{list(t.shape)}" for t in function.inputs)
        outs = ", ".join(f"{t.name} {t.dtype}{list(t.shape)}" for t in function.outputs)
        lines.append(
            f"  {ins} -> {outs}; {len(function.steps)} steps, workspace"
            f" {function.workspace_floats * 4 / 1e6:.1f} MB"
        )
    return lines


def profile_table(profile: "Profile", top: int | None) -> "Table":
    """The time of every layer, or of the slowest ones; what it computes in where any computes
    integers."""
    integers = any(row.precision == INTEGERS for row in profile.layers)
    table = new_table(
        "layer",
        "ms",
        "share",
        "GOP/s" if integers else "GFLOP/s",
        "of peak",
        *(["computes"] if integers else []),
        "zeros",
        "N",
        "imbalance",
        "kernel",
        "decision",
        "why",
    )
    rows = sorted(profile.layers, key=lambda row: -row.ms)[:top] if top else profile.layers
    for row in rows:
        peak, zeros = (
            f"{share:.0%}" if share is not None else "-" for share in (row.of_peak, row.sparsity)
        )
        times = [f"{row.ms:.3f}", f"{row.share:.1%}", f"{row.gflops:.0f}", peak]
        balance = f"{row.imbalance:.2f}" if row.imbalance is not None else "-"
        table.add_row(
            row.layer,
            *times,
            *([row.precision or "-"] if integers else []),
            zeros,
            str(row.n or "-"),
            balance,
            row.family,
            row.decision or "-",
            why(row),
        )
    return table
