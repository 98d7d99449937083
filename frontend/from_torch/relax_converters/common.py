"""Converters for torch operators that TVM's importer lacks, or gets wrong for some arguments.

Each is called as `convert(node, importer)` and leaves the cases that TVM converts well to it.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx
from tvm import relax

from subpc.frontend.from_torch.nodes import arguments

Converter = Callable[[fx.Node, Any], Any]


def shape_of(value: Any) -> list[int]:
    """The extents of a tensor, all of them known."""
    return [int(extent) for extent in value.ty.shape]


def theirs(node: fx.Node, importer: Any) -> Any:
    """What TVM's own converter makes of the node."""
    return importer.theirs[node.target.__name__](node)  # type: ignore[union-attr]


def _scaled(operator: Callable[[Any, Any], Any]) -> Converter:
    """x + alpha * y and x - alpha * y: TVM drops alpha."""

    def convert(node: fx.Node, importer: Any) -> Any:
        a = arguments(node)
        if a["alpha"] == 1:
            return theirs(node, importer)
        x, y = importer.env[a["self"]], importer.env[a["other"]]
        scaled = importer.block_builder.emit(
            relax.op.multiply(y, relax.const(a["alpha"], y.ty.dtype))
        )
        return importer.block_builder.emit(operator(x, scaled))

    return convert


def _elu(node: fx.Node, importer: Any) -> Any:
    """scale * (x if x > 0 else alpha * (exp(input_scale * x) - 1)): TVM knows alpha only, and SELU
    needs the scale."""
    a = arguments(node)
    x, emit = importer.env[a["self"]], importer.block_builder.emit
    if a["scale"] == 1 and a["input_scale"] == 1:
        return theirs(node, importer)

    def const(value: float) -> Any:
        return relax.const(value, x.ty.dtype)

    negative = emit(
        relax.op.exp(
            emit(relax.op.multiply(emit(relax.op.minimum(x, const(0))), const(a["input_scale"])))
        )
    )
    negative = emit(
        relax.op.multiply(
            emit(relax.op.subtract(negative, const(1))), const(a["alpha"] * a["scale"])
        )
    )
    return emit(
        relax.op.add(
            emit(relax.op.multiply(emit(relax.op.nn.relu(x)), const(a["scale"]))), negative
        )
    )


def _exp2(node: fx.Node, importer: Any) -> Any:
    x = importer.env[node.args[0]]
    return importer.block_builder.emit(relax.op.power(relax.const(2, x.ty.dtype), x))


def _avg_pool2d(node: fx.Node, importer: Any) -> Any:
    """TVM ignores divisor_override."""
    a = arguments(node)
    divisor = a["divisor_override"]
    if divisor is None:
        return theirs(node, importer)
    if a["ceil_mode"]:
        raise ValueError("avg_pool2d with both divisor_override and ceil_mode")
    kernel = _pair(a["kernel_size"])
    x, emit = importer.env[a["self"]], importer.block_builder.emit
    pooled = emit(
        relax.op.nn.avg_pool2d(
            x,
            kernel,
            _pair(a["stride"]) if a["stride"] else kernel,
            _pair(a["padding"]),
            count_include_pad=True,
        )
    )
    return emit(relax.op.multiply(pooled, relax.const(math.prod(kernel) / divisor, x.ty.dtype)))


def _pair(value: Any) -> list[int]:
    return list(value) * (2 // len(value)) if isinstance(value, Sequence) else [value, value]


def _adaptive_max_pool2d(node: fx.Node, importer: Any) -> Any:
    """The maximum over windows of rows, then over windows of columns; the indices are never there
    (see supported.py)."""
    a, emit = arguments(node), importer.block_builder.emit
    x = importer.env[a["self"]]
    for axis, count in zip((-2, -1), a["output_size"], strict=True):
        extent = shape_of(x)[axis]
        windows = [(i * extent // count, -(-(i + 1) * extent // count)) for i in range(count)]
        parts = [
            emit(
                relax.op.max(
                    emit(relax.op.strided_slice(x, [axis], [s], [e])), axis=axis, keepdims=True
                )
            )
            for s, e in windows
        ]
        x = emit(relax.op.concat(parts, axis=axis)) if count > 1 else parts[0]
    return [x, None]


def _extreme(reduce: Callable[..., Any], position: Callable[..., Any] | None) -> Converter:
    """amax, amin; with `position` also where the extreme is: max.dim, min.dim."""

    def convert(node: fx.Node, importer: Any) -> Any:
        a, emit = arguments(node), importer.block_builder.emit
        x, axis = importer.env[a["self"]], a["dim"] if a["dim"] != [] else None
        values = emit(reduce(x, axis=axis, keepdims=a["keepdim"]))
        return (
            values
            if position is None
            else [values, emit(position(x, axis=axis, keepdims=a["keepdim"]))]
        )

    return convert


def _prod(node: fx.Node, importer: Any) -> Any:
    a = arguments(node)
    return importer.block_builder.emit(
        relax.op.prod(importer.env[a["self"]], axis=a["dim"], keepdims=a["keepdim"])
    )


def _var_mean(node: fx.Node, importer: Any) -> Any:
    a, emit = arguments(node), importer.block_builder.emit
    x, correction = importer.env[a["self"]], 1 if a["correction"] is None else a["correction"]
    axes = list(range(x.ty.ndim)) if a["dim"] is None else [axis % x.ty.ndim for axis in a["dim"]]
    count = math.prod(shape_of(x)[axis] for axis in axes)
    variance = emit(relax.op.variance(x, axis=axes, keepdims=a["keepdim"]))
    if correction:
        variance = emit(
            relax.op.multiply(variance, relax.const(count / max(count - correction, 0), x.ty.dtype))
        )
    return [variance, emit(relax.op.mean(x, axis=axes, keepdims=a["keepdim"]))]


def _layer_norm(node: fx.Node, importer: Any) -> Any:
    """TVM takes the affine part for granted."""
    a = arguments(node)
    x, shape = importer.env[a["input"]], [int(n) for n in a["normalized_shape"]]
    gamma, beta = _affine(importer, a["weight"], a["bias"], shape, x)
    return importer.block_builder.emit(
        relax.op.nn.layer_norm(x, gamma, beta, axes=list(range(-len(shape), 0)), epsilon=a["eps"])
    )


def _group_norm(node: fx.Node, importer: Any) -> Any:
    """The same for aten.native_group_norm, which has mean and variance as further results."""
    a = arguments(node)
    x = importer.env[a["input"]]
    gamma, beta = _affine(importer, a["weight"], a["bias"], [shape_of(x)[1]], x)
    axes = list(range(2, x.ty.ndim))
    normal = relax.op.nn.group_norm(
        x, gamma, beta, num_groups=a["group"], channel_axis=1, axes=axes, epsilon=a["eps"]
    )
    return [importer.block_builder.emit(normal), None, None]


def _affine(importer: Any, weight: Any, bias: Any, shape: list[int], like: Any) -> tuple[Any, Any]:
    dtype = str(like.ty.dtype)
    gamma = (
        relax.const(torch.ones(shape).numpy(), dtype) if weight is None else importer.env[weight]
    )
    return gamma, relax.const(torch.zeros(shape).numpy(), dtype) if bias is None else importer.env[
        bias
    ]


OURS: dict[str, Converter] = {
    "adaptive_max_pool2d.default": _adaptive_max_pool2d,
    "add.Tensor": _scaled(relax.op.add),
    "amax.default": _extreme(relax.op.max, None),
    "amin.default": _extreme(relax.op.min, None),
    "avg_pool2d.default": _avg_pool2d,
    "elu.default": _elu,
    "exp2.default": _exp2,
    "layer_norm.default": _layer_norm,
    "max.dim": _extreme(relax.op.max, relax.op.argmax),
    "min.dim": _extreme(relax.op.min, relax.op.argmin),
    "native_group_norm.default": _group_norm,
    "prod.dim_int": _prod,
    "sub.Tensor": _scaled(relax.op.subtract),
    "var_mean.correction": _var_mean,
}
