"""What TVM's operators mean, in PyTorch, as its documentation says; ours are in
subpc/calibration/meanings.py."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional as F
from tvm import relax

from subpc.calibration.meanings import convolution, pooled
from subpc.passes.dataflow import shape_of

Tensor = torch.Tensor


def _numbers(values: Any) -> list[int]:
    return [int(v) for v in values]


def _pooled(kind: str, call: relax.Call, x: Tensor, **options: bool) -> Tensor:
    a = call.attrs
    return pooled(
        kind,
        x,
        size=a.pool_size,
        strides=a.strides,
        padding=a.padding,
        out=shape_of(call)[2:],
        **options,
    )


def _sections(sections: Any) -> int | list[int]:
    """How many parts of a split, or where they begin."""
    return _values(sections) if hasattr(sections, "__iter__") else int(sections)


def _batch_norm(
    call: relax.Call, x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, variance: Tensor
) -> Sequence[Tensor]:
    return (
        F.batch_norm(x, mean, variance, gamma, beta, eps=float(call.attrs.epsilon)),
        mean,
        variance,
    )


def _slice(
    x: Tensor, axes: Sequence[int], begin: Sequence[int], end: Sequence[int], strides: Sequence[int]
) -> Tensor:
    where = [slice(None)] * x.ndim
    for axis, first, last, step in zip(
        *(_values(v) for v in (axes, begin, end, strides)), strict=True
    ):
        where[axis] = slice(first, last, step)
    return x[tuple(where)]


def _values(numbers: Any) -> list[int]:
    return [int(getattr(n, "value", n)) for n in numbers]


MEANINGS: dict[str, Callable[..., Any]] = {
    "relax.nn.conv2d": lambda c, x, w: convolution(
        x, w, c.attrs.strides, c.attrs.padding, c.attrs.dilation, int(c.attrs.groups)
    ),
    "relax.nn.batch_norm": _batch_norm,
    "relax.nn.max_pool2d": lambda c, x: _pooled("max", c, x),
    "relax.nn.avg_pool2d": lambda c, x: _pooled(
        "avg", c, x, count_include_pad=bool(c.attrs.count_include_pad)
    ),
    "relax.nn.adaptive_avg_pool2d": lambda c, x: F.adaptive_avg_pool2d(
        x, _numbers(c.attrs.output_size)
    ),
    "relax.mean": lambda c, x: x.mean(_numbers(c.attrs.axis), keepdim=bool(c.attrs.keepdims)),
    "relax.matmul": lambda c, x, y: x @ y,
    "relax.permute_dims": lambda c, x: x.permute(
        _numbers(c.attrs.axes) if c.attrs.axes is not None else range(x.ndim - 1, -1, -1)
    ),
    "relax.strided_slice": lambda c, x, axes, begin, end, strides: _slice(
        x, axes, begin, end, strides
    ),
    "relax.reshape": lambda c, x, shape: x.reshape(_numbers(shape.values)),
    "relax.split": lambda c, x: torch.tensor_split(
        x, _sections(c.attrs.indices_or_sections), int(c.attrs.axis)
    ),
    "relax.concat": lambda c, parts: torch.cat(parts, int(c.attrs.axis)),
    "relax.clip": lambda c, x, low, high: x.clamp(float(low.value), float(high.value)),
    "relax.exp": lambda c, x: torch.exp(x),
    "relax.sigmoid": lambda c, x: torch.sigmoid(x),
    "relax.nn.relu": lambda c, x: F.relu(x),
    "relax.nn.silu": lambda c, x: F.silu(x),
    "relax.nn.gelu": lambda c, x: F.gelu(x),
    "relax.nn.gelu_tanh": lambda c, x: F.gelu(x, approximate="tanh"),
    "relax.nn.leakyrelu": lambda c, x: F.leaky_relu(x, float(c.attrs.alpha)),
    "relax.add": lambda c, x, y: x + y,
    "relax.subtract": lambda c, x, y: x - y,
    "relax.multiply": lambda c, x, y: x * y,
    "relax.divide": lambda c, x, y: x / y,
    "relax.maximum": lambda c, x, y: torch.maximum(x, y),
    "relax.minimum": lambda c, x, y: torch.minimum(x, y),
}
