"""Normalisations of ONNX that TVM's importer lacks, or computes as a difference of squares, which
loses everything beside a large mean."""

import math
from collections.abc import Callable
from typing import Any

from tvm import relax

from subpc.frontend.from_onnx.graph import NodeError
from subpc.frontend.from_onnx.relax_converters.numbers import const_like

Converter = Callable[[list[Any], dict[str, Any], int], Any]

# Beside the deviation in MeanVarianceNormalization.
_SMALL = 1e-9


def lp_normalization(inputs: list[Any], attrs: dict[str, Any], opset: int) -> Any:
    """x over its norm of order 1 or 2 along an axis; zeros, whose norm is zero, stay zeros."""
    x, axis, order = inputs[0], int(attrs.get("axis", -1)), int(attrs.get("p", 2))
    if order not in (1, 2):
        raise NodeError(f"p={order}; 1 and 2 are accepted")
    size = relax.op.abs(x) if order == 1 else relax.op.multiply(x, x)
    total = relax.op.sum(size, [axis], True)
    norm = total if order == 1 else relax.op.sqrt(total)
    return relax.op.divide(
        x, relax.op.where(relax.op.equal(norm, const_like(0, x)), const_like(1, x), norm)
    )


def mean_variance_normalization(inputs: list[Any], attrs: dict[str, Any], opset: int) -> Any:
    """(x - mean) / deviation."""
    x, axes = inputs[0], [int(axis) for axis in attrs.get("axes", (0, 2, 3))]
    centred, variance = _centred(x, axes)
    return relax.op.divide(centred, relax.op.add(relax.op.sqrt(variance), const_like(_SMALL, x)))


def layer_normalization(inputs: list[Any], attrs: dict[str, Any], opset: int) -> Any:
    """With mean and inverse deviation as further results, where they are asked for; None for the
    usual single result."""
    if attrs["tvm_custom"]["num_outputs"] < 2:
        return None
    x, scale = inputs[0], inputs[1]
    rank = int(x.ty.ndim)
    axes = list(range(int(attrs.get("axis", -1)) % rank, rank))
    centred, variance = _centred(x, axes)
    inverse = relax.op.divide(
        const_like(1, x),
        relax.op.sqrt(relax.op.add(variance, const_like(attrs.get("epsilon", 1e-5), x))),
    )
    normal = relax.op.multiply(relax.op.multiply(centred, inverse), scale)
    bias = inputs[2] if len(inputs) > 2 else None
    return relax.Tuple(
        [
            normal if bias is None else relax.op.add(normal, bias),
            relax.op.mean(x, axes, True),
            inverse,
        ]
    )


def _centred(x: Any, axes: list[int]) -> tuple[Any, Any]:
    """x without its mean over `axes`, and the variance."""
    shape = [int(n) for n in x.ty.shape]
    count = math.prod(shape[axis] for axis in axes)
    centred = relax.op.subtract(x, relax.op.mean(x, axes, True))
    return centred, relax.op.divide(
        relax.op.sum(relax.op.multiply(centred, centred), axes, True), const_like(count, x)
    )


CONVERTERS: dict[str, Converter] = {
    "LayerNormalization": layer_normalization,
    "LpNormalization": lp_normalization,
    "MeanVarianceNormalization": mean_variance_normalization,
}
