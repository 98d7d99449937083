"""How far two models' outputs and layers lie apart."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from subpc.comparison.align_layers import Traced, aligned, result_shape
from subpc.comparison.names import match_layers
from subpc.comparison.report import LayerError, OutputError

Array = npt.NDArray[np.float64]


def output_error(name: str, first: npt.NDArray[Any], second: npt.NDArray[Any]) -> OutputError:
    """How far output `name` of the second model is from that of the first, arrays (samples, ...) of
    one shape."""
    numbers = first.dtype.kind == "f" and second.dtype.kind == "f"
    a, b = first.astype(np.float64), second.astype(np.float64)
    difference, scores = np.abs(a - b), numbers and a.ndim == 2 and a.shape[1] > 1
    return OutputError(
        name=name,
        shape=a.shape[1:],
        top1=float((a.argmax(axis=1) == b.argmax(axis=1)).mean()) if scores else None,
        kl=float(_divergence(a, b).mean()) if scores else None,
        max_error=float(difference.max(initial=0.0)),
        mean_error=float(difference.mean()) if difference.size else 0.0,
        relative=relative_error(a, b),
        equal=None if numbers else float((first == second).mean()) if difference.size else 1.0,
    )


def relative_error(a: Array, b: Array) -> float:
    """||a - b|| / ||a|| of two arrays of one shape."""
    return float(np.linalg.norm(a - b) / max(float(np.linalg.norm(a)), 1e-30))


def _divergence(a: Array, b: Array) -> Array:
    """sum softmax(a) (log softmax(a) - log softmax(b)) of each row, (samples,): Kullback and
    Leibler, 1951.

    It is never negative; what rounding takes it below zero is cut off.
    """
    first, second = _log_softmax(a), _log_softmax(b)
    result: Array = np.maximum((np.exp(first) * (first - second)).sum(axis=1), 0.0)
    return result


def _log_softmax(x: Array) -> Array:
    shifted = x - x.max(axis=1, keepdims=True)
    result: Array = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


@dataclass
class _Sums:
    """Squared norms of a layer's difference and of its value in a, and the largest difference, over
    all batches."""

    difference: float = 0.0
    value: float = 0.0
    largest: float = 0.0
    note: str = ""

    def add(self, pair: "tuple[Array, Array] | str") -> None:
        """Count one batch, or note why it cannot be counted."""
        if isinstance(pair, str):
            self.note = pair
            return
        a, b = (np.asarray(value, np.float64).ravel() for value in pair)
        self.difference += float(np.square(a - b).sum())
        self.value += float(np.square(a).sum())
        self.largest = max(self.largest, float(np.abs(a - b).max()))

    @property
    def relative(self) -> float:
        """||a - b|| / ||a|| over everything counted."""
        return float(np.sqrt(self.difference / max(self.value, 1e-60)))


def layer_errors(
    runs: Iterable[tuple[Traced, Traced]],
) -> tuple[list[LayerError], dict[str, str], tuple[str, ...]]:
    """One entry for each layer that both models have, in a's order; layers that only one has; and
    what was matched by order alone.

    runs: traces of several batches, one at a time, because all activations of a network are large.
    """
    sums: dict[str, _Sums] = {}
    skipped: dict[str, str] = {}
    ordered: tuple[str, ...] = ()
    partners: dict[str, str] = {}
    for a, b in runs:
        partners, ordered = match_layers(
            *({name: result_shape(layer) for name, layer in side.layers.items()} for side in (a, b))
        )
        for name, other in partners.items():
            sums.setdefault(name, _Sums()).add(aligned(a.layers[name], b.layers[other]))
        skipped = {name: "only in a" for name in a.layers if name not in partners}
        skipped |= {name: "only in b" for name in b.layers if name not in partners.values()}
    rows = [
        replace(row, note=row.note or f"{partners[row.layer]} in b")
        if row.layer in ordered
        else row
        for row in _rows(sums)
    ]
    return rows, skipped, ordered


def _rows(sums: dict[str, _Sums]) -> list[LayerError]:
    rows: list[LayerError] = []
    before = 0.0
    for name, found in sums.items():
        if found.note:
            rows.append(
                LayerError(layer=name, relative=None, max_error=None, rise=None, note=found.note)
            )
            continue
        rows.append(
            LayerError(
                layer=name,
                relative=found.relative,
                max_error=found.largest,
                rise=found.relative - before,
            )
        )
        before = found.relative
    return rows
