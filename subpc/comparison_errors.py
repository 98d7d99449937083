"""How far two models' outputs and layers lie apart."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from subpc.comparison_layers import Traced, aligned
from subpc.comparison_report import LayerError, OutputError

Array = npt.NDArray[np.float64]


def output_error(name: str, a: Array, b: Array) -> OutputError:
    """Compare one output, (samples, ...), of both models."""
    difference, scores = np.abs(a - b), a.ndim == 2 and a.shape[1] > 1
    return OutputError(
        name=name,
        shape=a.shape[1:],
        top1=float((a.argmax(axis=1) == b.argmax(axis=1)).mean()) if scores else None,
        kl=float(_divergence(a, b).mean()) if scores else None,
        max_error=float(difference.max()),
        mean_error=float(difference.mean()),
        relative=relative_error(a, b),
    )


def relative_error(a: Array, b: Array) -> float:
    """||a - b|| / ||a||."""
    return float(np.linalg.norm(a - b) / max(float(np.linalg.norm(a)), 1e-30))


def _divergence(a: Array, b: Array) -> Array:
    """sum softmax(a) (log softmax(a) - log softmax(b)) of each row: Kullback and Leibler, 1951."""
    first, second = _log_softmax(a), _log_softmax(b)
    result: Array = (np.exp(first) * (first - second)).sum(axis=1)
    return result


def _log_softmax(x: Array) -> Array:
    shifted = x - x.max(axis=1, keepdims=True)
    result: Array = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


def layer_errors(runs: Sequence[tuple[Traced, Traced]]) -> tuple[list[LayerError], dict[str, str]]:
    """One entry for each layer that both models have, in a's order; and layers that only one has. runs: traces of several batches."""
    first, second = runs[0]
    partners = _partners(list(first.layers), list(second.layers))
    rows: list[LayerError] = []
    before = 0.0
    for name, other in partners.items():
        pairs = [aligned(a.layers[name], b.layers[other]) for a, b in runs]
        reasons = [pair for pair in pairs if isinstance(pair, str)]
        if reasons:
            rows.append(LayerError(layer=name, relative=None, max_error=None, rise=None, note=reasons[0]))
            continue
        left, right = (np.concatenate([pair[i].ravel() for pair in pairs]).astype(np.float64) for i in (0, 1))  # type: ignore[union-attr]
        error = relative_error(left, right)
        rows.append(LayerError(layer=name, relative=error, max_error=float(np.abs(left - right).max()), rise=error - before))
        before = error
    skipped = {name: "only in a" for name in first.layers if name not in partners}
    return rows, skipped | {name: "only in b" for name in second.layers if name not in partners.values()}


def _partners(first: Sequence[str], second: Sequence[str]) -> dict[str, str]:
    """The name in b of each layer of a: the same, or the module that an exporter has made a node's path of."""
    modules = {module_path(name): name for name in second}
    found = {name: name if name in second else modules.get(module_path(name)) for name in first}
    return {name: other for name, other in found.items() if other is not None}


def module_path(name: str) -> str:
    """`layer1.0.conv1` for PyTorch's ONNX node `/layer1/layer1.0/conv1/Conv`; other names as they are."""
    if not name.startswith("/"):
        return name
    parts: list[str] = []
    for part in name.strip("/").split("/")[:-1]:
        inside = bool(parts) and part.startswith(parts[-1] + ".")
        parts[-1:] = [part] if inside else [*parts[-1:], part]
    return ".".join(parts)
