"""Recognise what spreads the pixels of planes over larger ones, or channels over others: pixel
shuffles, however they are spelled, nearest upsampling, and channel shuffles."""

from itertools import product

from tvm import relax

from subpc.passes import ops
from subpc.passes.dataflow import Dataflow, shape_of

_RESHAPES = ("relax.reshape", ops.VIEW)
# How a resize counts places, and rounds them, where every pixel becomes a block of pixels if both
# sides grow by whole factors.
_BLOCKS = {("asymmetric", ""), ("asymmetric", "floor"), ("half_pixel", "round")}
# More phases than this would be unrolled for long.
MAX_FACTOR = 16


def interleaved(graph: Dataflow, var: relax.Var, call: relax.Call) -> relax.Call | None:
    """A reshape, pixel_shuffle or resize2d as a subpc.interleave or subpc.channels, None where it
    is something else."""
    if call.op.name == "relax.image.resize2d":
        return _nearest(var, call)
    if call.op.name == "relax.nn.pixel_shuffle":
        factor = int(call.attrs.upscale_factor)
        return _interleave(var, call.args[0], (factor, factor), (factor, 1), factor * factor)
    return _shuffle(graph, var)


def _nearest(var: relax.Var, call: relax.Call) -> relax.Call | None:
    attrs = call.attrs
    how = str(attrs.coordinate_transformation_mode), str(attrs.rounding_method)
    if str(attrs.method) != "nearest_neighbor" or str(attrs.layout) != "NCHW" or how not in _BLOCKS:
        return None
    source, out = shape_of(call.args[0])[2:], shape_of(var)[2:]
    if any(large % small for large, small in zip(out, source, strict=True)):
        return None
    factors = out[0] // source[0], out[1] // source[1]
    return _interleave(var, call.args[0], factors, (0, 0), 1)


def _shuffle(graph: Dataflow, var: relax.Var) -> relax.Call | None:
    """reshape to (N, three parts of the channels, H, W), permute to (N, C, H, rows, W, columns),
    reshape."""
    last = graph.call(var, *_RESHAPES)
    permute = graph.call(last.args[0], "relax.permute_dims") if last is not None else None
    first = graph.call(permute.args[0], *_RESHAPES) if permute is not None else None
    if permute is None or first is None or permute.attrs.axes is None:
        return None
    x, parts, out = first.args[0], shape_of(permute.args[0]), shape_of(var)
    axes = [int(axis) for axis in permute.attrs.axes]
    if len(shape_of(x)) != 4 or len(out) != 4 or not isinstance(graph.resolve(x), relax.Var):
        return None
    if len(parts) == 5:
        return _channel_shuffle(var, x, parts, axes)
    if len(parts) != 6:
        return None
    batch, channel, height, row, width, column = axes
    if (batch, height, width) != (0, 4, 5) or (parts[0], *parts[4:]) != (
        shape_of(x)[0],
        *shape_of(x)[2:],
    ):
        return None
    factors = parts[row], parts[column]
    if out != (parts[0], parts[channel], parts[4] * factors[0], parts[5] * factors[1]):
        return None
    strides = {1: parts[2] * parts[3], 2: parts[3], 3: 1}
    return _interleave(var, x, factors, (strides[row], strides[column]), strides[channel])


def _channel_shuffle(
    var: relax.Var, x: relax.Expr, parts: tuple[int, ...], axes: list[int]
) -> relax.Call | None:
    """permute (N, groups, C / groups, H, W) to (N, C / groups, groups, H, W), as channels again."""
    batch, channels, *plane = shape_of(x)
    whole = parts[0] == batch and parts[1] * parts[2] == channels and [*parts[3:]] == plane
    if not whole or axes != [0, 2, 1, 3, 4] or shape_of(var) != shape_of(x):
        return None
    return ops.make(
        ops.CHANNELS,
        [x],
        first=0,
        groups=parts[1],
        out_shape=list(shape_of(var)),
        name=str(var.name),
    )


def _interleave(
    var: relax.Var, x: relax.Expr, factors: tuple[int, int], strides: tuple[int, int], step: int
) -> relax.Call | None:
    """strides: channels from one row or column of a block to the next; step: from one channel of
    the result to the next."""
    if max(factors) > MAX_FACTOR:
        return None
    places = [r * strides[0] + q * strides[1] for r, q in product(*map(range, factors))]
    return ops.make(
        ops.INTERLEAVE,
        [x],
        name=str(var.name),
        factors=list(factors),
        crop=[0, 0],
        starts=places,
        steps=[step] * len(places),
        activation="none",
        out_shape=list(shape_of(var)),
    )
