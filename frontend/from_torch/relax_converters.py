"""Converters for torch operators that TVM's importer lacks, or gets wrong for some arguments.

Each is called as `convert(node, importer)` and leaves the cases that TVM converts well to it.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx
from torch.nn import functional
from tvm import relax

from subpc.frontend.from_torch.nodes import arguments
from subpc.frontend.sampling import grid_sample

Converter = Callable[[fx.Node, Any], Any]

# Mode numbers of aten.grid_sampler_2d.
_METHODS = {0: "bilinear", 1: "nearest"}
_PADDINGS = ("zeros", "border", "reflection")


def _shape(value: Any) -> list[int]:
    return [int(extent) for extent in value.ty.shape]


def _theirs(node: fx.Node, importer: Any) -> Any:
    """What TVM's own converter makes of the node."""
    return importer.theirs[node.target.__name__](node)  # type: ignore[union-attr]


def _scaled(operator: Callable[[Any, Any], Any]) -> Converter:
    """x + alpha * y and x - alpha * y: TVM drops alpha."""

    def convert(node: fx.Node, importer: Any) -> Any:
        a = arguments(node)
        if a["alpha"] == 1:
            return _theirs(node, importer)
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
        return _theirs(node, importer)

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
        return _theirs(node, importer)
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
    (see torch_support)."""
    a, emit = arguments(node), importer.block_builder.emit
    x = importer.env[a["self"]]
    for axis, count in zip((-2, -1), a["output_size"], strict=True):
        extent = _shape(x)[axis]
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
    count = math.prod(_shape(x)[axis] for axis in axes)
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
    gamma, beta = _affine(importer, a["weight"], a["bias"], [_shape(x)[1]], x)
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


def _resize(mode: str) -> Converter:
    """Interpolation. TVM's agrees with PyTorch's where the output is a whole multiple of the input;
    the rest is a product with matrices."""

    def convert(node: fx.Node, importer: Any) -> Any:
        a = arguments(node)
        x = importer.env[a["input"]]
        size, out = _shape(x)[2:], [int(n) for n in node.meta["val"].shape[2:]]
        whole = all(o % i == 0 for o, i in zip(out, size, strict=True))
        if whole and (
            a.get("scale_factors") is None
            or all(s == o // i for s, o, i in zip(a["scale_factors"], out, size, strict=True))
        ):
            return _theirs(node, importer)
        align = bool(a.get("align_corners"))
        for axis in (2, 3):
            scale = a["scale_factors"][axis - 2] if a.get("scale_factors") else None
            x = _along(
                importer, x, axis, _interpolation(mode, size[axis - 2], out[axis - 2], scale, align)
            )
        return x

    return convert


def _interpolation(
    mode: str, size: int, out: int, scale: float | None, align: bool
) -> torch.Tensor:
    """(out, size): the weight of each input pixel in each output pixel along one axis, asked of
    PyTorch itself."""
    antialias, mode = mode.endswith("_aa"), mode.removesuffix("_aa")
    options = {} if mode == "nearest" else {"align_corners": align, "antialias": antialias}
    extent = {"size": (out, 2)} if scale is None else {"scale_factor": (scale, 1.0)}
    # One channel for each input pixel. Two equal columns: PyTorch's antialiasing reads planes of
    # one column with wrong strides.
    unit = torch.eye(size).reshape(1, size, size, 1).repeat(1, 1, 1, 2)
    result = functional.interpolate(unit, mode=mode, **extent, **options)
    return result[0, :, :, 0].T.contiguous()


def _along(importer: Any, x: Any, axis: int, matrix: torch.Tensor) -> Any:
    """The matrix applied to every column (axis 2) or row (axis 3) of the planes."""
    if axis == 2:
        return importer.block_builder.emit(relax.op.matmul(relax.const(matrix.numpy()), x))
    return importer.block_builder.emit(
        relax.op.matmul(x, relax.const(matrix.T.contiguous().numpy()))
    )


def _resize_antialiased(node: fx.Node, importer: Any) -> Any:
    a = arguments(node)
    x = importer.env[a["self"]]
    out = [int(n) for n in node.meta["val"].shape[2:]]
    for axis in (2, 3):
        x = _along(
            importer,
            x,
            axis,
            _interpolation(
                "bilinear_aa", _shape(x)[axis], out[axis - 2], None, bool(a["align_corners"])
            ),
        )
    return x


def _grid_sampler(node: fx.Node, importer: Any) -> Any:
    a, emit = arguments(node), importer.block_builder.emit
    method = _METHODS.get(a["interpolation_mode"])
    if method is None:
        raise ValueError("grid_sample is supported with mode='bilinear' and mode='nearest'")
    x, grid, padding = (
        importer.env[a["input"]],
        importer.env[a["grid"]],
        _PADDINGS[a["padding_mode"]],
    )
    return emit(
        grid_sample(emit, x, grid, method=method, padding=padding, align=bool(a["align_corners"]))
    )


OURS: dict[str, Converter] = {
    "_upsample_bilinear2d_aa.default": _resize_antialiased,
    "adaptive_max_pool2d.default": _adaptive_max_pool2d,
    "add.Tensor": _scaled(relax.op.add),
    "amax.default": _extreme(relax.op.max, None),
    "amin.default": _extreme(relax.op.min, None),
    "avg_pool2d.default": _avg_pool2d,
    "elu.default": _elu,
    "exp2.default": _exp2,
    "grid_sampler_2d.default": _grid_sampler,
    "layer_norm.default": _layer_norm,
    "max.dim": _extreme(relax.op.max, relax.op.argmax),
    "min.dim": _extreme(relax.op.min, relax.op.argmin),
    "native_group_norm.default": _group_norm,
    "prod.dim_int": _prod,
    "sub.Tensor": _scaled(relax.op.subtract),
    "upsample_bicubic2d.vec": _resize("bicubic"),
    "upsample_bilinear2d.vec": _resize("bilinear"),
    "upsample_nearest2d.vec": _resize("nearest"),
    "var_mean.correction": _var_mean,
}
