"""Converters for torch operators that pick, add up or put back values along axes; TVM's are wrong
for some of them, or missing."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import fx
from tvm import relax

from subpc.frontend.from_torch.relax_converters.common import Converter, shape_of
from subpc.frontend.overlap import overlap_added
from subpc.frontend.running import running


def cumulative(operator: Callable[[Any, Any], Any], neutral: float) -> Converter:
    """cumsum and cumprod, whose result may be of another type than their input."""

    def convert(node: fx.Node, importer: Any) -> Any:
        x, emit = importer.env[node.args[0]], importer.block_builder.emit
        dtype = str(node.meta["val"].dtype).removeprefix("torch.")
        wide = x if str(x.ty.dtype) == dtype else emit(relax.op.astype(x, dtype))
        axis: Any = node.args[1] if len(node.args) > 1 else node.kwargs["dim"]
        return emit(running(wide, int(axis), operator, neutral)) if x.ty.ndim else wide

    return convert


def index(node: fx.Node, importer: Any) -> Any:
    """x[:, rows, columns]: with several tensors of indices, all of them at once pick from what
    their axes are together."""
    x, emit = importer.env[node.args[0]], importer.block_builder.emit
    indices: Any = node.args[1]
    given = [(axis, importer.env[i]) for axis, i in enumerate(indices) if i is not None]
    if any(str(i.ty.dtype) == "bool" for _, i in given):
        return importer.theirs["index.Tensor"](node)
    if len(given) == 1:
        return emit(relax.op.take(x, given[0][1], axis=given[0][0]))
    extents, axes = shape_of(x), [axis for axis, _ in given]
    others = [axis for axis in range(len(extents)) if axis not in axes]
    shape = np.broadcast_shapes(*(shape_of(i) for _, i in given))
    place = relax.const(np.zeros(shape, np.int64), "int64")
    for axis, i in given:
        wide = emit(relax.op.astype(i, "int64"))
        inside = emit(
            relax.op.where(
                relax.op.less(wide, _int(0)), relax.op.add(wide, _int(extents[axis])), wide
            )
        )
        place = emit(relax.op.add(emit(relax.op.multiply(place, _int(extents[axis]))), inside))
    front = emit(relax.op.permute_dims(x, [*axes, *others]))
    rows = emit(
        relax.op.reshape(
            front, [math.prod(extents[axis] for axis in axes), *(extents[axis] for axis in others)]
        )
    )
    picked = emit(relax.op.take(rows, place, axis=0))
    start = (
        axes[0] if axes == list(range(axes[0], axes[-1] + 1)) else 0
    )  # where the indices are apart, their axes come first
    order = [
        *range(len(shape), len(shape) + start),
        *range(len(shape)),
        *range(len(shape) + start, len(shape) + len(others)),
    ]
    return emit(relax.op.permute_dims(picked, order))


def _int(value: int) -> Any:
    return relax.const(value, "int64")


def windows(node: fx.Node, importer: Any) -> Any:
    """Tensor.unfold: slices of one size along an axis, which becomes the last one."""
    numbers: Any = node.args[1:4]
    x, axis, size, step = importer.env[node.args[0]], *(int(n) for n in numbers)
    emit, rank = importer.block_builder.emit, int(x.ty.ndim)
    axis %= rank
    starts = np.arange(0, shape_of(x)[axis] - size + 1, step)
    picked = emit(
        relax.op.take(x, relax.const(starts[:, None] + np.arange(size), "int64"), axis=axis)
    )
    return emit(
        relax.op.permute_dims(picked, [*range(axis + 1), *range(axis + 2, rank + 1), axis + 1])
    )


def fold(node: fx.Node, importer: Any) -> Any:
    """Overlapping blocks added into an image."""
    pairs: Any = node.args[1:6]
    size, kernel, dilation, padding, stride = ([int(n) for n in pair] for pair in pairs)
    x = importer.env[node.args[0]]
    batch = shape_of(x) if x.ty.ndim == 3 else [1, *shape_of(x)]
    image = overlap_added(
        relax.op.reshape(x, batch), batch, size, kernel, stride, [*padding, *padding], dilation
    )
    return importer.block_builder.emit(relax.op.reshape(image, list(node.meta["val"].shape)))


OURS: dict[str, Converter] = {
    "col2im.default": fold,
    "cumprod.default": cumulative(relax.op.multiply, 1),
    "cumsum.default": cumulative(relax.op.add, 0),
    "index.Tensor": index,
    "unfold.default": windows,
}
