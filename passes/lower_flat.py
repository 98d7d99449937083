"""Lowering of convolutions to flat kernels, which read strided inputs sorted by phase."""

from tvm import relax

from subpc.passes import ops
from subpc.passes.dataflow import constant_of, dtype_of
from subpc.passes.lower import Lowering, framed_layout
from subpc.passes.pack_blocks import by_index, pack_weights, pixel_mask
from subpc.passes.place_conv import PlacedConv, filter_blocks, place_conv
from subpc.passes.place_planes import sorted_by_phase
from subpc.passes.plan_layout import ConvGeometry, conv_geometry
from subpc.schedules.choose_flat import FLAT, choose_flat_tile
from subpc.schedules.flat_conv import FlatConv
from subpc.schedules.flat_tile import FlatTile
from subpc.schedules.operand import floats

# Output channels of one dense row block; the largest divisor of c_out up to this is taken.
DENSE_ROWS = 8
# Operands that clamp the input.
BOUNDS = ("floor", "ceiling")


def lower_flat(low: Lowering, var: relax.Var, call: relax.Call) -> None:
    """The input as the kernel reads it, its weights, its bounds, and a mask where columns lie
    between the rows."""
    name, geometry = ops.attributes(call)["name"], conv_geometry(call)
    filters, frame, clamp = (
        filter_blocks(low, call),
        low.frames.planar(*geometry.out, dtype_of(var)),
        low.clamps.get(name),
    )
    tuned = low.tuned(name, FLAT)
    by_rows = tuned is not None and tuned.phase_rows
    value = low.graph.resolve(call.args[0] if clamp is None else clamp.args[0])
    source, x = (
        (framed_layout(value, frame), low.framed(value, frame))
        if geometry.in_order
        else sorted_by_phase(low, call, value, geometry, frame, rows_outer=by_rows)
    )
    placed = place_conv(low, var, call, filters, source, x, frame)
    bounds = (
        [] if clamp is None else [constant_of(low.graph.resolve(bound)) for bound in clamp.args[1:]]
    )
    kernel = _kernel(low, placed, geometry, BOUNDS[: len(bounds)], tuned)
    operands = placed.operands(low)
    operands |= pack_weights(
        low.weights, filters, kernel.group, kernel.tile.rows, kernel.phases * source.frame.plane
    )
    operands |= {
        name: low.weights.add(by_index(bound, filters.pattern))
        for name, bound in zip(kernel.bounds, bounds, strict=True)
    }
    if kernel.masked:
        operands["mask"] = low.weights.add(pixel_mask(frame))
    low.emit(placed.name, kernel, operands)


def _kernel(
    low: Lowering,
    placed: PlacedConv,
    geometry: ConvGeometry,
    bounds: tuple[str, ...],
    tuned: FlatTile | None,
) -> FlatConv:
    """The workload of one convolution, with its tuned or its default tile."""
    pattern, out = placed.filters.pattern, placed.out.layout
    dense_rows = (
        tuned.rows
        if tuned
        else max(rows for rows in range(1, DENSE_ROWS + 1) if out.channels % rows == 0)
    )
    fields = placed.fields(dense_rows)
    group, kept = fields["group"], fields["kept"]
    blocks = kept if pattern and not pattern.uniform else kept * (out.channels // group)
    tile = tuned or choose_flat_tile(
        group=group,
        row_total=out.channels,
        pixels=out.frame.pixels,
        batch=out.batch,
        channel_flops=2 * max(1, blocks * group // out.channels) * len(geometry.taps),
        weight_bytes=floats(blocks * group * len(geometry.taps)).bytes,
        source_bytes=placed.source.image_bytes,
        isa=low.isa,
    )
    return FlatConv(
        **fields,
        phases=len(geometry.phases),
        taps=geometry.offsets(out.frame),
        bounds=bounds,
        tile=tile,
    )
