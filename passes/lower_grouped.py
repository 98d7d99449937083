"""Lowering of depthwise convolutions, and of grouped ones with few filters a group."""

from tvm import relax

from subpc.passes import ops
from subpc.passes.dataflow import constant_of, dtype_of
from subpc.passes.lower import Lowering, framed_layout
from subpc.passes.plan_layout import conv_geometry
from subpc.passes.program import Location
from subpc.schedules.choose_grouped import GROUPED, default_grouped_tile
from subpc.schedules.epilogue import Epilogue
from subpc.schedules.grouped_conv import GroupedConv


def lower_grouped(low: Lowering, var: relax.Var, call: relax.Call) -> None:
    """One kernel, with weights as the model has them; it never overwrites its residual."""
    attrs, geometry = ops.attributes(call), conv_geometry(call)
    weight, bias = (constant_of(low.graph.resolve(arg)) for arg in call.args[1:3])
    assert weight is not None and bias is not None
    source_frame, frame = (
        low.frames.planar(*geometry.source, dtype_of(call.args[0])),
        low.frames.planar(*geometry.out, dtype_of(var)),
    )
    x = low.framed(call.args[0], source_frame)
    residual = low.framed(call.args[3], frame) if len(call.args) == 4 else None
    out = low.define(var, frame)
    kernel = GroupedConv(
        source=framed_layout(low.graph.resolve(call.args[0]), source_frame),
        out=out.layout,
        groups=attrs["groups"],
        kernel=(weight.shape[2], weight.shape[3]),
        stride=tuple(attrs["strides"]),
        padding=tuple(attrs["padding"][:2]),
        dilation=tuple(attrs["dilation"]),
        epilogue=Epilogue(
            residual=residual is not None, activation=ops.activation_of(attrs["activation"])
        ),
        tile=low.tuned(attrs["name"], GROUPED) or default_grouped_tile(out.layout, low.isa),
    )
    operands: dict[str, Location | None] = {
        "x": x,
        "w": low.weights.add(weight),
        "bias": low.weights.add(bias),
        "y": out.location,
    }
    low.emit(attrs["name"], kernel, operands | {"residual": residual})
