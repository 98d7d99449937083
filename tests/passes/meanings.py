"""What every operator of a Relax function means, in PyTorch: TVM's as its documentation says, ours
as ops.py does."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional as F
from tvm import relax

from subpc.passes import ops
from tests.activations import REFERENCE

Tensor = torch.Tensor


def _numbers(values: Any) -> list[int]:
    return [int(v) for v in values]


def _conv(
    x: Tensor, weight: Tensor, strides: Any, padding: Any, dilation: Any, groups: int
) -> Tensor:
    top, left, bottom, right = _numbers(padding)
    return F.conv2d(
        F.pad(x, (left, right, top, bottom)),
        weight,
        None,
        _numbers(strides),
        0,
        _numbers(dilation),
        groups,
    )


def _pool(
    kind: str, x: Tensor, size: Any, strides: Any, padding: Any, count_include_pad: bool
) -> Tensor:
    top, left, bottom, right = _numbers(padding)
    border = (left, right, top, bottom)
    if kind == "max":
        return F.max_pool2d(F.pad(x, border, value=-torch.inf), _numbers(size), _numbers(strides))
    total = F.avg_pool2d(F.pad(x, border), _numbers(size), _numbers(strides))
    return (
        total
        if count_include_pad
        else total
        / F.avg_pool2d(F.pad(torch.ones_like(x), border), _numbers(size), _numbers(strides))
    )


BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "max": torch.maximum,
    "min": torch.minimum,
}


def activated(x: Tensor, text: str) -> Tensor:
    """An activation as attributes spell it: "relu", "clip -1.0 1.0"."""
    kind, *numbers = text.split()
    return REFERENCE[kind](x, *(float(n) for n in numbers))


def _our_conv(
    call: relax.Call, x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None = None
) -> Tensor:
    a = ops.attributes(call)
    y = _conv(x, weight, a["strides"], a["padding"], a["dilation"], a["groups"]) + bias.reshape(
        1, -1, 1, 1
    )
    return activated(y if residual is None else y + residual, a["activation"])


def _our_transposed(call: relax.Call, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """From weights (out, in / groups, kh, kw) back to PyTorch's, and the sides cut off that its
    padding cuts off."""
    a, (out, inputs, *size) = ops.attributes(call), weight.shape
    groups = a["groups"]
    own = (
        weight.reshape(groups, out // groups, inputs, *size)
        .swapaxes(1, 2)
        .reshape(groups * inputs, out // groups, *size)
    )
    whole = F.conv_transpose2d(x, own, bias, a["strides"], dilation=a["dilation"], groups=groups)
    top, left = a["padding"][:2]
    after = [
        cut + n - whole.shape[2 + i]
        for i, (cut, n) in enumerate(zip((top, left), a["out_shape"][2:], strict=True))
    ]
    padded = F.pad(
        whole - bias.reshape(1, -1, 1, 1), (-left, after[1], -top, after[0])
    ) + bias.reshape(1, -1, 1, 1)
    return activated(padded, a["activation"])


def _our_interleave(call: relax.Call, x: Tensor, fill: Tensor | None = None) -> Tensor:
    a, (rows, columns) = ops.attributes(call), ops.attributes(call)["factors"]
    channels, (height, width) = a["out_shape"][1], a["out_shape"][2:]
    whole = torch.empty(len(x), channels, x.shape[2] * rows, x.shape[3] * columns)
    for phase, (start, step) in enumerate(zip(a["starts"], a["steps"], strict=True)):
        part = x[:, [start + c * step for c in range(channels)]] if start >= 0 else None
        if part is None:
            assert fill is not None
            part = (
                activated(fill, a["activation"])
                .reshape(1, -1, 1, 1)
                .expand(len(x), -1, *x.shape[2:])
            )
        whole[:, :, phase // columns :: rows, phase % columns :: columns] = part
    top, left = a["crop"]
    return whole[:, :, top : top + height, left : left + width]


def _our_linear(call: relax.Call, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    a = ops.attributes(call)
    return activated(x @ (weight if a["transposed"] else weight.T) + bias, a["activation"])


def _our_pool(call: relax.Call, x: Tensor) -> Tensor:
    a = ops.attributes(call)
    return _pool(a["kind"], x, a["size"], a["strides"], a["padding"], bool(a["count_include_pad"]))


def _our_elementwise(call: relax.Call, *operands: Tensor) -> Tensor:
    a = ops.attributes(call)
    shapes = {"channel": (1, -1, 1, 1), "image_channel": (*a["out_shape"][:2], 1, 1)}
    values = [
        x.reshape(shapes[kind]) if kind in shapes else x
        for x, kind in zip(operands, a["kinds"], strict=True)
    ]
    stack: list[Tensor] = []
    for word in a["program"]:
        name, _, rest = word.partition(" ")
        if name == "arg":
            stack.append(values[int(rest)])
        elif name == "const":
            stack.append(torch.tensor(float(rest)))
        elif name == "act":
            stack.append(activated(stack.pop(), rest))
        else:
            right = stack.pop()
            stack.append(BINARY[name](stack.pop(), right))
    (result,) = stack
    return result.expand(a["out_shape"])


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
    "relax.nn.conv2d": lambda c, x, w: _conv(
        x, w, c.attrs.strides, c.attrs.padding, c.attrs.dilation, int(c.attrs.groups)
    ),
    "relax.nn.batch_norm": _batch_norm,
    "relax.nn.max_pool2d": lambda c, x: _pool(
        "max", x, c.attrs.pool_size, c.attrs.strides, c.attrs.padding, False
    ),
    "relax.nn.avg_pool2d": lambda c, x: _pool(
        "avg",
        x,
        c.attrs.pool_size,
        c.attrs.strides,
        c.attrs.padding,
        bool(c.attrs.count_include_pad),
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
    ops.CONV2D: _our_conv,
    ops.CONV2D_TRANSPOSE: _our_transposed,
    ops.LINEAR: _our_linear,
    ops.INTERLEAVE: _our_interleave,
    ops.CHANNELS: lambda c, x: x[:, ops.attributes(c)["first"] :][
        :, : ops.attributes(c)["out_shape"][1]
    ],
    ops.POOL2D: _our_pool,
    ops.GLOBAL_POOL: lambda c, x: x.mean((2, 3)).reshape(ops.attributes(c)["out_shape"]),
    ops.ELEMENTWISE: _our_elementwise,
    ops.CONCAT: lambda c, *parts: torch.cat(parts, 1),
    ops.VIEW: lambda c, x: x.reshape(ops.attributes(c)["out_shape"]),
}
