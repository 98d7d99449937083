"""Planes as convolutions read them: pixels sorted by phase, and a halo that holds what padding
is."""

from dataclasses import replace

from tvm import relax

from subpc.passes import ops
from subpc.passes.lower import Lowering
from subpc.passes.plan_layout import ConvGeometry
from subpc.passes.program import Location
from subpc.schedules.fill_halo import FillHalo
from subpc.schedules.layout import Frame, TensorLayout
from subpc.schedules.relayout import PhaseSplit


def sorted_by_phase(
    low: Lowering,
    call: relax.Call,
    value: relax.Expr,
    geometry: ConvGeometry,
    frame: Frame,
    *,
    zero_point: int = 0,
    rows_outer: bool = False,
) -> tuple[TensorLayout, Location]:
    """The pixels of `value`, which a strided convolution reads, sorted by phase.

    zero_point: what padding is. rows_outer: as in PhaseSplit.
    """
    home = low.home(value)
    split = PhaseSplit(
        source=home.layout,
        stride=geometry.stride,
        phases=geometry.phases,
        out=frame,
        fill=zero_point,
        rows_outer=rows_outer,
    )
    planes = low.new_buffer(split.layout)
    # Before the pixels: a phase may have a row or column more than the frame says.
    fill_halo(low, planes, split.layout, zero_point, whole=not split.complete)
    low.emit(ops.attributes(call)["name"], split, {"x": home.location, "y": planes})
    return split.layout, planes


def fill_halo(
    low: Lowering,
    location: Location,
    layout: TensorLayout,
    zero_point: int,
    *,
    whole: bool = False,
) -> None:
    """Let a tensor's halo hold the zero point; its memory is no longer for those who count on
    zeros there. whole: its pixels, too, where not all of them will be written."""
    if zero_point == 0:
        return
    if location.space == "workspace":
        buffers = low.program.buffers
        buffers[location.index] = replace(buffers[location.index], fill=zero_point)
    kernel = FillHalo(layout=layout, zero_point=zero_point, whole=whole)
    low.emit("padding", kernel, {"y": location})
