"""Lowering of everything that works on whole planes: pooling, concatenation, fused elementwise
passes, views."""

from dataclasses import replace

from tvm import relax

from subpc.passes import ops
from subpc.passes.dataflow import dtype_of, shape_of
from subpc.passes.lower import Lowering, framed_layout, layout_of
from subpc.passes.program import Location
from subpc.schedules.channel_copy import ChannelCopy
from subpc.schedules.global_pool import GlobalPool
from subpc.schedules.interleave import Interleave
from subpc.schedules.layout import Frame, TensorLayout
from subpc.schedules.pool2d import Pool2d
from subpc.schedules.quantization import CODES, Quantization
from subpc.schedules.relayout import Relayout

# How many poolings in a row are looked through for the activation in front of them.
MAX_POOLINGS = 8


def lower_pool2d(low: Lowering, var: relax.Var, call: relax.Call) -> None:
    """A subpc.pool2d, from whatever layout the input has to the frame of the output's size."""
    attrs, x = ops.attributes(call), low.home(call.args[0])
    out, largest = low.define(var, low.frames.frame(var)), attrs["kind"] == "max"
    codes, result = (None, None) if largest else _codes(var, call)
    kernel = Pool2d(
        kind=attrs["kind"],
        source=x.layout,
        out=out.layout,
        kernel=tuple(attrs["size"]),
        stride=tuple(attrs["strides"]),
        padding=tuple(attrs["padding"]),
        dilation=tuple(attrs["dilation"]),
        count_include_pad=bool(attrs["count_include_pad"]),
        nonnegative=largest and _nothing_below_the_frame(low, call),
        codes=codes,
        result=result,
    )
    low.emit(attrs["name"], kernel, {"x": x.location, "y": out.location})


def _nothing_below_the_frame(low: Lowering, call: relax.Call) -> bool:
    """Whether no pixel that a maximum reads is less than what stands around the pixels: 0, or the
    zero point."""
    attrs = ops.attributes(call)
    codes = ops.quantization_of(attrs.get("x_quantization") or attrs.get("quantization"))
    lowest = codes is not None and codes.zero_point == 0
    return lowest or is_nonnegative(low, call.args[0])


def is_nonnegative(low: Lowering, value: relax.Expr) -> bool:
    """Whether an activation that cannot be negative produced the value, a few poolings before."""
    for _ in range(MAX_POOLINGS):
        call = low.graph.call(value, ops.CONV2D, ops.ELEMENTWISE, ops.POOL2D)
        if call is None:
            return False
        attrs = ops.attributes(call)
        if call.op.name != ops.POOL2D:
            last = (
                attrs["activation"]
                if call.op.name == ops.CONV2D
                else attrs["program"][-1].removeprefix("act ")
            )
            return last in ("relu", "relu6", "sigmoid", "hardsigmoid")
        value = call.args[0]
    return False


def lower_global_pool(low: Lowering, var: relax.Var, call: relax.Call) -> None:
    """A subpc.global_pool: (N, C, H, W) to N * C numbers."""
    x, (codes, result) = low.home(call.args[0]), _codes(var, call)
    out = low.define(var)
    low.emit(
        ops.attributes(call)["name"],
        GlobalPool(source=x.layout, codes=codes, result=result),
        {"x": x.location, "y": out.location},
    )


def _codes(var: relax.Var, call: relax.Call) -> tuple[Quantization | None, Quantization | None]:
    """What a mean reads and what it writes: the same codes, where nothing else is said; then their
    scale makes no difference."""
    attrs = ops.attributes(call)
    read, written = (
        ops.quantization_of(attrs.get(name)) for name in ("x_quantization", "quantization")
    )
    read, written = read or written, written or read
    if dtype_of(call.args[0]) != CODES or read is None:
        return None, None
    if dtype_of(var) != CODES:
        return read, None
    if written == read:
        read = written = replace(read, scale=1.0)
    return read, written


def lower_interleave(low: Lowering, var: relax.Var, call: relax.Call) -> None:
    """A subpc.interleave, from whatever layout the input has to the frame of the output's size."""
    attrs, x, filled = ops.attributes(call), low.home(call.args[0]), len(call.args) > 1
    out = low.define(var, low.frames.frame(var))
    kernel = Interleave(
        source=x.layout,
        out=out.layout,
        factors=tuple(attrs["factors"]),
        crop=tuple(attrs["crop"]),
        starts=tuple(attrs["starts"]),
        steps=tuple(attrs["steps"]),
        activation=ops.activation_of(attrs["activation"]),
        quantization=ops.quantization_of(attrs.get("quantization")) if filled else None,
    )
    fill = {"fill": low.home(call.args[1]).location} if kernel.filled else {}
    low.emit(attrs["name"], kernel, {"x": x.location, "y": out.location, **fill})


def lower_view(low: Lowering, var: relax.Var, call: relax.Call) -> None:
    """A subpc.view: the contiguous form of the input, under another shape."""
    low.record(var, low.compact(call.args[0]), layout_of(var))


def lower_channels(low: Lowering, var: relax.Var, call: relax.Call) -> None:
    """A subpc.channels: nothing to do where one image's planes are whole cache lines and stay in
    order, else a copy."""
    attrs, x = ops.attributes(call), low.home(call.args[0])
    (batch, channels), first, frame = attrs["out_shape"][:2], attrs["first"], x.layout.frame
    if batch == 1 and not frame.compact and "groups" not in attrs:
        place = replace(x.location, offset=x.location.offset + first * x.layout.plane_bytes)
        low.record(var, place, replace(x.layout, channels=channels))
        return
    kernel = ChannelCopy(
        batch=batch,
        frame=frame,
        source_channels=x.layout.channels,
        out_channels=channels,
        count=channels,
        source_start=first,
        groups=attrs.get("groups", 1),
        dtype=x.layout.dtype,
    )
    low.emit(attrs["name"], kernel, {"x": x.location, "y": low.define(var, frame).location})


def lower_concat(low: Lowering, var: relax.Var, call: relax.Call) -> None:
    """A subpc.concat: nothing to do for inputs that were written into it, a copy for the others."""
    attrs = ops.attributes(call)
    batch, frame = attrs["out_shape"][0], low.frames.frame(var)
    fields = low.graph.operands(call)
    whole = low.sliced(var, frame)
    if (
        whole is None
        and not frame.compact
        and all(
            low.slices.get(f) and low.slices[f].root == var
            for f in fields
            if isinstance(f, relax.Var)
        )
    ):
        whole = low.root(var, frame)
    out = (
        low.define(var, frame)
        if whole is None
        else low.record(var, whole, framed_layout(var, frame))
    )
    channel = 0
    for field in fields:
        channels = shape_of(field)[1]
        part = replace(out.layout, batch=1, channels=channels)
        for image in range(batch):
            start = (
                out.location.offset
                + image * out.layout.image_bytes
                + channel * out.layout.plane_bytes
            )
            target = replace(out.location, offset=start)
            _copy_part(low, attrs["name"], field, part, target, image)
        channel += channels


def _copy_part(
    low: Lowering, layer: str, field: relax.Expr, part: TensorLayout, target: Location, image: int
) -> None:
    """Bring image `image` of one operand to its place, unless its producer wrote it there."""
    home = low.home(field)
    if home.location == target and home.layout == part:
        return
    source = replace(home.layout, batch=1, channels=part.channels)
    at = replace(home.location, offset=home.location.offset + image * source.image_bytes)
    low.emit(layer, Relayout(source=source, out=part), {"x": at, "y": target})


def frame_of_elementwise(low: Lowering, var: relax.Var, call: relax.Call) -> Frame | None:
    """The frame for an elementwise result: that of its size if any operand is framed, else
    compact."""
    attrs = ops.attributes(call)
    if len(attrs["out_shape"]) != 4:
        return None
    tensors = [arg for arg, kind in zip(call.args, attrs["kinds"], strict=True) if kind == "tensor"]
    if all(low.home(arg).layout.frame.compact for arg in tensors):
        return None
    return low.frames.frame(var)
