"""What every operator of passes/ops.py means, in PyTorch.

Tensors come with any number of images: what an operator's `out_shape` says of the first axis holds
for one batch of the graph, and several of them lie one behind the other along it.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from tvm import relax

from subpc.passes import ops
from subpc.schedules.quantization import LARGEST_CODE

# Kind of an activation -> function of a tensor, and of what stands behind the kind in an attribute:
# bounds, a slope.
ACTIVATIONS: dict[str, Callable[..., Tensor]] = {
    "none": lambda x: x,
    "relu": F.relu,
    "relu6": F.relu6,
    "clip": lambda x, low, high: x.clamp(low, high),
    "leaky_relu": F.leaky_relu,
    "hardsigmoid": F.hardsigmoid,
    "hardswish": F.hardswish,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "tanh": torch.tanh,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "exp": torch.exp,
}
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
    return ACTIVATIONS[kind](x, *(float(n) for n in numbers))


def convolution(
    x: Tensor, weight: Tensor, strides: Any, padding: Any, dilation: Any, groups: int
) -> Tensor:
    """A 2-D convolution; padding: top, left, bottom, right."""
    top, left, bottom, right = (int(p) for p in padding)
    strides, dilation = [int(s) for s in strides], [int(d) for d in dilation]
    if (top, left) == (bottom, right):
        return F.conv2d(x, weight, None, strides, (top, left), dilation, groups)
    padded = F.pad(x, (left, right, top, bottom))
    return F.conv2d(padded, weight, None, strides, 0, dilation, groups)


def pooled(
    kind: str,
    x: Tensor,
    *,
    size: Any,
    strides: Any,
    padding: Any,
    dilation: Any = (1, 1),
    count_include_pad: bool = False,
    out: tuple[int, int] | None = None,
) -> Tensor:
    """A 2-D pooling; kind: "max" or "avg"; padding: top, left, bottom, right; out: rows and columns
    of the result, where windows may reach beyond the padding (ceil_mode), which counts for
    nothing."""
    top, left, bottom, right = (int(p) for p in padding)
    size, strides, dilation = ([int(n) for n in pair] for pair in (size, strides, dilation))
    border = (left, right, top, bottom)
    beyond = _beyond(x, border, size, strides, dilation, out)
    if kind == "max":
        padded = F.pad(F.pad(x, border, value=-torch.inf), beyond, value=-torch.inf)
        return F.max_pool2d(padded, size, strides, 0, dilation)
    total = F.avg_pool2d(F.pad(F.pad(x, border), beyond), size, strides)
    if not any(beyond) and (count_include_pad or not any(border)):
        return total
    counted = F.pad(torch.ones_like(x[:1]), border, value=float(count_include_pad))
    return total / F.avg_pool2d(F.pad(counted, beyond), size, strides)


def _beyond(
    x: Tensor,
    border: tuple[int, int, int, int],
    size: list[int],
    strides: list[int],
    dilation: list[int],
    out: tuple[int, int] | None,
) -> tuple[int, int, int, int]:
    """Columns and rows behind the padding that the last windows reach, as F.pad takes them."""
    if out is None:
        return 0, 0, 0, 0
    height, width = x.shape[2] + border[2] + border[3], x.shape[3] + border[0] + border[1]
    rows, columns = (
        max(0, (count - 1) * step + (taps - 1) * apart + 1 - have)
        for count, step, taps, apart, have in zip(
            out, strides, size, dilation, (height, width), strict=True
        )
    )
    return 0, columns, 0, rows


def _conv2d(
    call: relax.Call, x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None = None
) -> Tensor:
    a = ops.attributes(call)
    y = convolution(x, weight, a["strides"], a["padding"], a["dilation"], a["groups"])
    y = y + bias.reshape(1, -1, 1, 1)
    return activated(y if residual is None else y + residual, a["activation"])


def _conv2d_transpose(call: relax.Call, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """From weights (out, in / groups, kh, kw) back to PyTorch's, and the sides cut off that its
    padding cuts off."""
    a, (out, inputs, *size) = ops.attributes(call), weight.shape
    groups = a["groups"]
    own = (
        weight.reshape(groups, out // groups, inputs, *size)
        .swapaxes(1, 2)
        .reshape(groups * inputs, out // groups, *size)
    )
    whole = F.conv_transpose2d(x, own, None, a["strides"], dilation=a["dilation"], groups=groups)
    top, left = a["padding"][:2]
    bottom, right = (
        cut + n - whole.shape[2 + i]
        for i, (cut, n) in enumerate(zip((top, left), a["out_shape"][2:], strict=True))
    )
    return activated(
        F.pad(whole, (-left, right, -top, bottom)) + bias.reshape(1, -1, 1, 1), a["activation"]
    )


def _linear(call: relax.Call, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    a = ops.attributes(call)
    return activated(x @ (weight if a["transposed"] else weight.T) + bias, a["activation"])


def _pool2d(call: relax.Call, x: Tensor) -> Tensor:
    a = ops.attributes(call)
    return pooled(
        a["kind"],
        x,
        size=a["size"],
        strides=a["strides"],
        padding=a["padding"],
        dilation=a["dilation"],
        count_include_pad=bool(a["count_include_pad"]),
        out=tuple(a["out_shape"][2:]),
    )


def _interleave(call: relax.Call, x: Tensor, fill: Tensor | None = None) -> Tensor:
    a, (rows, columns) = ops.attributes(call), ops.attributes(call)["factors"]
    channels, (height, width) = a["out_shape"][1], a["out_shape"][2:]
    whole = x.new_empty(len(x), channels, x.shape[2] * rows, x.shape[3] * columns)
    for phase, (start, step) in enumerate(zip(a["starts"], a["steps"], strict=True)):
        if start >= 0:
            part = x[:, [start + c * step for c in range(channels)]]
        else:
            assert fill is not None
            part = activated(fill, a["activation"]).reshape(1, -1, 1, 1)
        whole[:, :, phase // columns :: rows, phase % columns :: columns] = part
    top, left = a["crop"]
    return whole[:, :, top : top + height, left : left + width]


def _elementwise(call: relax.Call, *operands: Tensor) -> Tensor:
    a = ops.attributes(call)
    shapes = {"channel": (1, -1, 1, 1), "image_channel": (-1, *a["out_shape"][1:2], 1, 1)}
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
            # No dimensions: it takes the type of what it meets.
            stack.append(torch.tensor(float(rest), dtype=torch.float64))
        elif name == "act":
            stack.append(activated(stack.pop(), rest))
        else:
            right = stack.pop()
            stack.append(BINARY[name](stack.pop(), right))
    (result,) = stack
    return result.expand(-1, *a["out_shape"][1:])


def _fake_quantize(call: relax.Call, x: Tensor) -> Tensor:
    quantization = ops.quantization_of(ops.attributes(call)["quantization"])
    assert quantization is not None
    scale, zero = quantization.scale, quantization.zero_point
    if x.dtype == torch.float32:
        # One pass instead of five; multiplies by the reciprocal, as kernels do.
        return torch.fake_quantize_per_tensor_affine(x, scale, zero, 0, LARGEST_CODE)
    steps = torch.nan_to_num(x / scale, nan=0.0).round_().clamp_(-zero, LARGEST_CODE - zero)
    return steps.mul_(scale)


def _dequantize(_call: relax.Call, codes: Tensor, scales: Tensor) -> Tensor:
    return codes.to(scales.dtype) * scales.reshape(-1, *(1,) * (codes.dim() - 1))


def _part_of_channels(call: relax.Call, x: Tensor) -> Tensor:
    a = ops.attributes(call)
    part = x[:, a["first"] : a["first"] + a["out_shape"][1]]
    groups = part.reshape(len(x), a.get("groups", 1), -1, *x.shape[2:])
    return groups.transpose(1, 2).reshape(part.shape)


def _reshaped(call: relax.Call, x: Tensor) -> Tensor:
    return x.reshape(-1, *ops.attributes(call)["out_shape"][1:])


MEANINGS: dict[str, Callable[..., Tensor]] = {
    ops.CONV2D: _conv2d,
    ops.CONV2D_TRANSPOSE: _conv2d_transpose,
    ops.LINEAR: _linear,
    ops.INTERLEAVE: _interleave,
    ops.CHANNELS: _part_of_channels,
    ops.POOL2D: _pool2d,
    ops.GLOBAL_POOL: lambda call, x: _reshaped(call, x.mean((2, 3))),
    ops.ELEMENTWISE: _elementwise,
    ops.CONCAT: lambda _call, *parts: torch.cat(parts, 1),
    ops.VIEW: _reshaped,
    ops.FAKE_QUANTIZE: _fake_quantize,
    ops.DEQUANTIZE: _dequantize,
}
