"""ONNX Upsample and Resize of every version: what TVM has a loop for, a gather of pixels, or a
product with a matrix an axis."""

import math
from typing import Any

import numpy as np
import tvm
from tvm import relax

from subpc.frontend.from_onnx.graph import NodeError
from subpc.frontend.from_onnx.resampling import Resampling, matrix_along, options_of, pixels_along
from subpc.frontend.sampling import grid_sample

# A matrix along one axis larger than this (256 MiB) is no image's.
_MAX_MATRIX = 1 << 26


def resize(inputs: list[Any], attrs: dict[str, Any], opset: int) -> Any:
    """Any axes of a tensor; ValueError where the sizes depend on the input, or the mode is none of
    ONNX's."""
    return _resized(inputs, options_of(attrs, old=opset < 11), attrs)


def upsample(inputs: list[Any], attrs: dict[str, Any], opset: int) -> Any:
    """Resize as it was called before opset 10: the pixel to the left, counted from the corner."""
    if len(inputs) < 2:
        inputs = [inputs[0], relax.const(np.array(attrs["scales"], np.float32))]
    return _resized(inputs, options_of(attrs, old=True), attrs)


def sample(inputs: list[Any], attrs: dict[str, Any], opset: int) -> Any:
    """GridSample by pixels and mixtures of two an axis; TVM does the cubic one."""
    mode, padding = (
        _text(attrs.get(name, default))
        for name, default in (("mode", "linear"), ("padding_mode", "zeros"))
    )
    method = {"linear": "bilinear", "bilinear": "bilinear", "nearest": "nearest"}.get(mode)
    x, grid = inputs
    if method is None or int(x.ty.ndim) not in (4, 5):
        return None
    return grid_sample(
        lambda value: value,
        x,
        grid,
        method=method,
        padding=padding,
        align=bool(attrs.get("align_corners", 0)),
    )


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _resized(inputs: list[Any], options: Resampling, attrs: dict[str, Any]) -> Any:
    x, shape = inputs[0], [int(extent) for extent in inputs[0].ty.shape]
    roi, scales, sizes = _operands(inputs)
    axes = [int(axis) % len(shape) for axis in attrs.get("axes") or range(len(shape))]
    factors, goals = _goals(shape, axes, scales, sizes, options.policy)
    spans = _spans(roi, axes, len(shape)) if options.crops else [(0.0, 1.0)] * len(shape)
    changed = [
        axis
        for axis in axes
        if goals[axis] != shape[axis] or factors[axis] != 1 or spans[axis] != (0.0, 1.0)
    ]
    if _is_whole(shape, goals, factors, changed) and options.copies_pixels:
        return _grown(x, goals, "nearest_neighbor")
    if _is_whole(shape, goals, factors, changed) and options.is_bilinear:
        return _grown(x, goals, "linear")
    inside = np.ones([1] * len(shape), np.float32)
    for axis in changed:
        if shape[axis] * goals[axis] > _MAX_MATRIX:
            raise NodeError(f"an axis of {shape[axis]} becomes {goals[axis]}; resize in steps")
        places = options.places(shape[axis], goals[axis], factors[axis], spans[axis])
        x = _along(x, shape, axis, options, places, factors[axis])
        shape[axis] = goals[axis]
        inside = inside * _column(
            options.inside(places, int(inputs[0].ty.shape[axis])), axis, len(shape)
        )
    return x if inside.all() else _filled(x, inside, options.fill)


def _operands(
    inputs: list[Any],
) -> tuple[list[float] | None, list[float] | None, list[float] | None]:
    """Region, scales and sizes; before opset 11 there were scales alone."""
    if len(inputs) == 2:
        return None, _numbers(inputs[1]), None
    given = [
        _numbers(inputs[i]) if len(inputs) > i and inputs[i] is not None else None
        for i in (1, 2, 3)
    ]
    roi, scales, sizes = [values or None for values in given]
    if (scales is None) == (sizes is None):
        raise NodeError("either scales or sizes have to be given")
    return roi, scales, sizes


def _numbers(value: Any) -> list[float]:
    if isinstance(value, relax.ShapeExpr):
        return [float(extent.value) for extent in value.values]
    if not isinstance(value, tvm.ir.GenericConst):
        raise NodeError("the new size is not a constant")
    return [float(number) for number in value.value.numpy().reshape(-1)]


def _goals(
    shape: list[int],
    axes: list[int],
    scales: list[float] | None,
    sizes: list[float] | None,
    policy: str,
) -> tuple[list[float], list[int]]:
    """How much each axis grows, and its new extent."""
    factors, goals = [1.0] * len(shape), list(shape)
    if sizes is not None:
        ratios = [size / shape[axis] for axis, size in zip(axes, sizes, strict=True)]
        common = {"stretch": None, "not_larger": min(ratios), "not_smaller": max(ratios)}[policy]
        for axis, size, ratio in zip(axes, sizes, ratios, strict=True):
            factors[axis] = ratio if common is None else common
            goals[axis] = int(size) if common is None else math.floor(common * shape[axis] + 0.5)
    for axis, scale in zip(axes, scales or [1.0] * len(axes), strict=True):
        if scales is not None:
            factors[axis], goals[axis] = (
                scale,
                int(np.floor(np.float32(shape[axis]) * np.float32(scale))),
            )
    if not all(
        factor > 0 and math.isfinite(factor) and goal > 0
        for factor, goal in zip(factors, goals, strict=True)
    ):
        raise NodeError(f"a shape of {shape} becomes {goals}")
    return factors, goals


def _spans(roi: list[float] | None, axes: list[int], rank: int) -> list[tuple[float, float]]:
    """The region of interest, from 0 to 1, along each axis."""
    if roi is None or len(roi) != 2 * len(axes):
        raise NodeError("tf_crop_and_resize without a constant region for each axis")
    found = [(0.0, 1.0)] * rank
    for i, axis in enumerate(axes):
        found[axis] = (roi[i], roi[i + len(axes)])
    return found


def _is_whole(shape: list[int], goals: list[int], factors: list[float], changed: list[int]) -> bool:
    """Whether height and width of a float image grow by whole factors, and nothing else changes."""
    whole = all(
        goals[axis] == shape[axis] * factors[axis] and factors[axis] == int(factors[axis])
        for axis in range(len(shape))
    )
    return len(shape) == 4 and whole and all(axis >= 2 for axis in changed)


def _grown(x: Any, goals: list[int], method: str) -> Any:
    """Pixels copied, or mixed as PyTorch does: places are the same however they are counted where
    they grow by whole factors."""
    how = {"coordinate_transformation_mode": "asymmetric", "rounding_method": "floor"}
    if method == "linear":
        how = {"coordinate_transformation_mode": "half_pixel", "rounding_method": ""}
    return relax.op.image.resize2d(
        x, size=relax.ShapeExpr(goals[2:]), layout="NCHW", method=method, **how
    )


def _along(
    x: Any, shape: list[int], axis: int, options: Resampling, places: np.ndarray, factor: float
) -> Any:
    """One axis resampled."""
    if options.mode == "nearest":
        return relax.op.take(
            x, relax.const(pixels_along(options, places, shape[axis], factor)), axis, mode="fast"
        )
    matrix = matrix_along(options, places, shape[axis], factor).astype(np.float32)
    if axis == len(shape) - 1:
        return relax.op.matmul(x, relax.const(np.ascontiguousarray(matrix.T)))
    if axis == len(shape) - 2:
        return relax.op.matmul(relax.const(matrix), x)
    flat = relax.op.reshape(x, [math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])])
    return relax.op.reshape(
        relax.op.matmul(relax.const(matrix), flat), [*shape[:axis], len(places), *shape[axis + 1 :]]
    )


def _column(values: np.ndarray, axis: int, rank: int) -> np.ndarray:
    return values.astype(np.float32).reshape([-1 if i == axis else 1 for i in range(rank)])


def _filled(x: Any, inside: np.ndarray, fill: float) -> Any:
    """x where `inside` is 1, else the value for what lies outside of the image."""
    kept = relax.op.multiply(x, relax.const(inside))
    return relax.op.add(kept, relax.const((1 - inside) * np.float32(fill))) if fill else kept
