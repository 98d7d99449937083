"""Filter rows and columns that read nothing but padding are cut off: dilated convolutions on small
planes have many of them.

On a 14x14 plane a 3x3 filter with dilation 24 is a 1x1 filter: its outer taps lie outside wherever
the filter stands.
"""

import tvm
from tvm import relax

from subpc.passes import ops
from subpc.passes.dataflow import Dataflow, constant_of, rewrite, shape_of


def trim_taps(module: tvm.IRModule) -> tvm.IRModule:
    """subpc.conv2d with constant weights gets the smallest filter that computes the same."""
    return rewrite(module, _trim)


def _trim(graph: Dataflow) -> None:
    for var, call in graph.calls(ops.CONV2D):
        weight = constant_of(graph.resolve(call.args[1]))
        if weight is None:
            continue
        rows, columns = (reading_taps(call, axis) for axis in range(2))
        if len(rows) * len(columns) in (0, weight.shape[2] * weight.shape[3]):
            continue
        attrs = ops.attributes(call)
        padding = [
            before - first * step
            for before, first, step in zip(
                attrs["padding"], (rows[0], columns[0]), attrs["dilation"], strict=False
            )
        ]
        if min(padding) < 0:
            # The first pixel read is not the first of the plane, which kernels have no word for.
            continue
        kept = weight[:, :, rows.start : rows.stop, columns.start : columns.stop]
        args = [call.args[0], relax.const(kept.copy()), *call.args[2:]]
        after = [
            _padding_after(call, axis, padding[axis], len(taps))
            for axis, taps in enumerate((rows, columns))
        ]
        graph.rebind(var, ops.with_attributes(call, args, padding=[*padding, *after]))


def reading_taps(call: relax.Call, axis: int) -> range:
    """The taps of a convolution, along rows (0) or columns (1), from the first to the last that
    reads a pixel of the plane."""
    attrs, extent, taps = (
        ops.attributes(call),
        shape_of(call.args[0])[2 + axis],
        shape_of(call.args[1])[2 + axis],
    )
    stride, step, before, steps = (
        attrs["strides"][axis],
        attrs["dilation"][axis],
        attrs["padding"][axis],
        attrs["out_shape"][2 + axis],
    )
    reading = [
        tap
        for tap in range(taps)
        if any(0 <= i * stride + tap * step - before < extent for i in range(steps))
    ]
    return range(reading[0], reading[-1] + 1) if reading else range(0)


def _padding_after(call: relax.Call, axis: int, before: int, taps: int) -> int:
    """Padding below or to the right that the smaller filter reads."""
    attrs, extent = ops.attributes(call), shape_of(call.args[0])[2 + axis]
    last = (
        (attrs["out_shape"][2 + axis] - 1) * attrs["strides"][axis]
        + (taps - 1) * attrs["dilation"][axis]
        - before
    )
    return int(max(0, last - (extent - 1)))
