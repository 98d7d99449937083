"""Lowering of convolutions to direct kernels, which read any input as it lies."""

from tvm import relax

from subpc.passes import ops
from subpc.passes.dataflow import dtype_of, shape_of
from subpc.passes.lower import Lowering, framed_layout
from subpc.passes.pack_blocks import pack_weights
from subpc.passes.place_conv import PlacedConv, filter_blocks, place_conv
from subpc.schedules.choose_direct import DIRECT, choose_direct_tile
from subpc.schedules.direct_conv import DirectConv
from subpc.schedules.direct_tile import DirectTile
from subpc.schedules.operand import floats


def lower_direct(low: Lowering, var: relax.Var, call: relax.Call) -> None:
    """One kernel."""
    emit_direct(low, call, place_as_it_lies(low, var, call))


def place_as_it_lies(low: Lowering, var: relax.Var, call: relax.Call) -> PlacedConv:
    """A convolution whose kernel reads the input in its own frame."""
    filters, frame = filter_blocks(low, call), low.frames.read_by(call)
    source = framed_layout(low.graph.resolve(call.args[0]), frame)
    x, (height, width) = low.framed(call.args[0], frame), shape_of(var)[2:]
    out_frame = low.frames.planar(height, width, dtype_of(var))
    return place_conv(low, var, call, filters, source, x, out_frame)


def emit_direct(low: Lowering, call: relax.Call, placed: PlacedConv) -> None:
    """The kernel call, with the layer's tuned or its default tile."""
    attrs, kernel_size = ops.attributes(call), shape_of(call.args[1])[2:]
    tile = low.tuned(placed.name, DIRECT) or _default_tile(low, call, placed)
    rows = low.isa.lanes * tile.vectors
    kernel = DirectConv(
        **placed.fields(rows),
        kernel=(kernel_size[0], kernel_size[1]),
        stride=tuple(attrs["strides"]),
        dilation=tuple(attrs["dilation"]),
        padding=tuple(attrs["padding"][:2]),
        tile=tile,
    )
    operands = placed.operands(low)
    operands |= pack_weights(
        low.weights, placed.filters, kernel.group, rows, placed.source.frame.plane
    )
    low.emit(placed.name, kernel, operands)


def _default_tile(low: Lowering, call: relax.Call, placed: PlacedConv) -> DirectTile:
    attrs, pattern, out = ops.attributes(call), placed.filters.pattern, placed.out.layout
    _, c_in, height, width = placed.filters.weight.shape
    share, blocks = (pattern.n, int(pattern.kept.sum())) if pattern else (out.channels, c_in)
    return choose_direct_tile(
        group=share,
        size=(out.frame.height, out.frame.width),
        kernel=(height, width),
        stride=attrs["strides"][1],
        dilation=attrs["dilation"][1],
        weight_bytes=floats(blocks * share * height * width).bytes,
        source_bytes=placed.source.image_bytes,
        disjoint=placed.epilogue.in_place,
        isa=low.isa,
    )
