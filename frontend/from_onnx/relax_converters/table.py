"""Converters for ONNX operators that TVM's importer writes as loops or spells unlike the PyTorch
importer.

Each returns None for the cases that it leaves to TVM.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tvm
from tvm import relax

from subpc.frontend.from_onnx.relax_converters import moves as onnx_moves
from subpc.frontend.from_onnx.relax_converters import norms as onnx_norms
from subpc.frontend.from_onnx.relax_converters import numbers as onnx_numbers
from subpc.frontend.from_onnx.relax_converters.pool import average_pool, lp_pool, max_pool
from subpc.frontend.from_onnx.relax_converters.resize import resize, sample, upsample

Converter = Callable[[list[Any], dict[str, Any], int], Any]

# How far exporters round 1/6 in HardSigmoid.
_ROUNDING = 1e-4


def _clip(inputs: list[Any], attrs: dict[str, Any], opset: int) -> Any:
    """relax.clip, as relu6 is in PyTorch, where TVM's importer writes its own minimum and maximum
    loops."""
    if str(inputs[0].ty.dtype) != "float32":
        return _clip_integers(inputs) if opset >= 11 else None
    if opset < 11:
        low, high = attrs.get("min", -math.inf), attrs.get("max", math.inf)
    else:
        bounds = [_scalar(inputs[i]) if len(inputs) > i else None for i in (1, 2)]
        if any(
            len(inputs) > i + 1 and inputs[i + 1] is not None and bounds[i] is None for i in (0, 1)
        ):
            return None
        low = -math.inf if bounds[0] is None or math.isnan(bounds[0]) else bounds[0]
        high = math.inf if bounds[1] is None or math.isnan(bounds[1]) else bounds[1]
    if low == 0 and high == math.inf:
        return relax.op.nn.relu(inputs[0])
    return relax.op.clip(inputs[0], low, high)


def _clip_integers(inputs: list[Any]) -> Any:
    """Integers have no infinite bound that stands for none."""
    x = inputs[0]
    for bound, limit in zip(inputs[1:], (relax.op.maximum, relax.op.minimum), strict=False):
        x = limit(x, bound) if bound is not None else x
    return x


def _hard_sigmoid(inputs: list[Any], attrs: dict[str, Any], opset: int) -> Any:
    """clip(x + 3, 0, 6) / 6, as PyTorch defines it, for the usual slope of 1/6."""
    if abs(attrs.get("alpha", 0.2) - 1 / 6) > _ROUNDING or attrs.get("beta", 0.5) != 0.5:
        return None
    x = inputs[0]
    return relax.op.divide(relax.op.clip(relax.op.add(x, _const(3, x)), 0, 6), _const(6, x))


def _global_average(inputs: list[Any], attrs: dict[str, Any], opset: int) -> Any:
    """The adaptive pooling that PyTorch networks end with."""
    if len(inputs[0].ty.shape) != 4:
        return None
    return relax.op.nn.adaptive_avg_pool2d(inputs[0], (1, 1))


def _sum(inputs: list[Any], attrs: dict[str, Any], opset: int) -> Any:
    """Additions one after the other: a residual connection, not a stack and a reduction."""
    return functools.reduce(relax.op.add, inputs)


def _concat(inputs: list[Any], attrs: dict[str, Any], opset: int) -> Any:
    """Weights beside activations: TVM's converter, made for shape arithmetic, takes all or none."""
    floats = all(
        isinstance(value.ty, relax.TensorType) and str(value.ty.dtype) == "float32"
        for value in inputs
    )
    return relax.op.concat(inputs, int(attrs["axis"])) if floats else None


def _scalar(value: Any) -> float | None:
    if not isinstance(value, tvm.ir.GenericConst):
        return None
    array = np.asarray(value.value.numpy())
    return float(array.reshape(())) if array.size == 1 else None


def _const(value: float, like: Any) -> Any:
    return relax.const(value, like.ty.dtype)


OURS: dict[str, Converter] = {
    **onnx_moves.CONVERTERS,
    **onnx_norms.CONVERTERS,
    **onnx_numbers.CONVERTERS,
    "AveragePool": average_pool,
    "Clip": _clip,
    "Concat": _concat,
    "GlobalAveragePool": _global_average,
    "GridSample": sample,
    "HardSigmoid": _hard_sigmoid,
    "LpPool": lp_pool,
    "MaxPool": max_pool,
    "Resize": resize,
    "Sum": _sum,
    "Upsample": upsample,
}
