"""ONNX poolings in Relax: over one, two or three axes, all as two-dimensional poolings, which have
a kernel.

Nodes have been through onnx_windows, so that padding is in numbers.
"""

import math
from collections.abc import Callable
from typing import Any

from tvm import relax

from subpc.frontend.from_onnx.graph import NodeError
from subpc.frontend.from_onnx.windows import Axis, axes_of

# (x, its two axes) -> the pooled x
Pool2d = Callable[[Any, list[Axis]], Any]


def max_pool(inputs: list[Any], attrs: dict[str, Any], opset: int) -> Any:
    """The largest value of each window."""
    return _over_all_axes(
        inputs[0], attrs, lambda x, axes: relax.op.nn.max_pool2d(x, **_options(axes))
    )


def average_pool(inputs: list[Any], attrs: dict[str, Any], opset: int) -> Any:
    """The mean of each window: of what lies in the image, or of its padding too."""
    counted, ceil = bool(attrs.get("count_include_pad", 0)), bool(attrs.get("ceil_mode", 0))

    def mean(x: Any, axes: list[Axis]) -> Any:
        if ceil and counted:  # where rounding up reaches beyond the padding, nothing is counted
            pads = [(axis.before, axis.after) for axis in axes]
            x = relax.op.nn.pad(x, [0, 0, 0, 0, *pads[0], *pads[1]])
            axes = [
                Axis(
                    a.extent + a.before + a.after,
                    a.kernel,
                    a.stride,
                    a.dilation,
                    0,
                    a.overhang(True),
                )
                for a in axes
            ]
        return relax.op.nn.avg_pool2d(x, count_include_pad=counted and not ceil, **_options(axes))

    return _over_all_axes(inputs[0], attrs, mean)


def lp_pool(inputs: list[Any], attrs: dict[str, Any], opset: int) -> Any:
    """(sum of |x|^p over each window)^(1/p); padding adds nothing."""
    x, p = inputs[0], float(attrs.get("p", 2))
    powers = relax.op.multiply(x, x) if p == 2 else relax.op.abs(x)
    if p not in (1, 2):
        powers = relax.op.exp(
            relax.op.multiply(relax.op.log(powers), _number(p, x))
        )  # TVM warns of its own power
    taps = math.prod(attrs["kernel_shape"])
    mean = _over_all_axes(
        powers,
        attrs,
        lambda x, axes: relax.op.nn.avg_pool2d(x, count_include_pad=True, **_options(axes)),
        like=x,
    )
    total = relax.op.multiply(mean, _number(taps, x))
    if p == 2:
        return relax.op.sqrt(total)
    return total if p == 1 else relax.op.power(total, _number(1 / p, x))


def _number(value: float, like: Any) -> Any:
    return relax.const(value, like.ty.dtype)


def _options(axes: list[Axis]) -> dict[str, Any]:
    return {
        "pool_size": [axis.kernel for axis in axes],
        "strides": [axis.stride for axis in axes],
        "padding": [axis.before for axis in axes] + [axis.after for axis in axes],
        "dilation": [axis.dilation for axis in axes],
    }


def _over_all_axes(x: Any, attrs: dict[str, Any], pool: Pool2d, like: Any = None) -> Any:
    """Maxima of maxima are maxima, and so with means: an axis more or less than two changes the
    shape alone."""
    batch, channels, *extents = [int(n) for n in (x if like is None else like).ty.shape]
    axes, ceil = axes_of(attrs, tuple(extents)), bool(attrs.get("ceil_mode", 0))
    if len(axes) == 2:
        return pool(x, axes)
    if len(axes) > 3:
        raise NodeError(f"{len(axes)} spatial dimensions; 1 to 3 can be pooled")
    *lost, last = axes
    out = [axis.positions(ceil) for axis in axes]
    if not lost:
        flat = relax.op.reshape(x, [batch, channels, 1, extents[0]])
        return relax.op.reshape(pool(flat, [_ALONE, last]), [batch, channels, *out])
    planes = pool(relax.op.reshape(x, [batch, channels * extents[0], *extents[1:]]), axes[1:])
    columns = relax.op.reshape(planes, [batch, channels, extents[0], out[1] * out[2]])
    return relax.op.reshape(
        pool(columns, [axes[0], Axis(out[1] * out[2], 1, 1, 1, 0, 0)]), [batch, channels, *out]
    )


_ALONE = Axis(1, 1, 1, 1, 0, 0)
