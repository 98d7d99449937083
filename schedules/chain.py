"""Several convolutions in one parallel loop: a task computes a band of rows of all of them, one after the other.

What lies between two layers is often larger than a core's L2: the first layer's loop has written it to L3, or to memory, before the
second one's reads it, perhaps on another core. A task that goes through all layers with few rows finds everything in L2 (Alwani et al.,
Fused-Layer CNN Accelerators, MICRO 2016). Results that nobody else reads live in memory of the task's own and are never written
anywhere else; rows that two neighbouring bands need are computed twice. And one loop is launched instead of several.
"""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import tvm
from tvm.tirx.script import builder as T

from subpc.schedules.direct_conv import DirectBody, DirectConv
from subpc.schedules.flat_conv import FlatBody, FlatConv
from subpc.schedules.grouped_conv import GroupedBody, GroupedConv
from subpc.schedules.isa import VectorIsa
from subpc.schedules.kernel import FLOAT, Kernel, kernel_builder, splat, store, thread_memory
from subpc.schedules.layout import LINE, Frame, Origin, TensorLayout, round_up

Stage = FlatConv | DirectConv | GroupedConv
# Lines behind the rows of a plane in a task's memory, which vectors that overrun a row may read.
SLACK_LINES = 3


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows scale * band + offset and the `count` - 1 after it."""

    scale: int
    offset: int
    count: int


@dataclass(frozen=True, kw_only=True)
class Chain:
    """stages: the kernels as each would run alone. kept: which of their results others read, too; the last one always. bands: tasks an
    image.

    Operands: those of each stage, `_<number>` after their names, the last stage's first; without x, which is the result before, and
    without y where nobody else reads it. Where x is in a task's memory, the index counts in planes of `source_plane` floats.
    """

    stages: tuple[Stage, ...]
    kept: tuple[bool, ...]
    bands: int

    def __post_init__(self) -> None:
        if not can_chain(self.stages, self.kept, self.bands):
            raise ValueError(f"{', '.join(stage.family for stage in self.stages)} cannot be computed in {self.bands} bands")

    @property
    def family(self) -> str:
        return "chain_" + "_".join(stage.family.removesuffix("_f32") for stage in self.stages)

    @property
    def operands(self) -> tuple[str, ...]:
        return tuple(self.sizes())

    @property
    def flops(self) -> int:
        """Without the rows that are computed twice."""
        return sum(stage.flops for stage in self.stages)

    def sizes(self) -> dict[str, tuple[int, str]]:
        """(elements, type) of each operand, in order."""
        sizes: dict[str, tuple[int, str]] = {}
        for number, stage in reversed(list(enumerate(self.stages))):
            left_out = {"x"} if number else set()
            left_out |= set() if self.kept[number] else {"y"}
            sizes |= {f"{name}_{number}": size for name, size in stage.sizes().items() if name not in left_out}
        return sizes

    def rows(self) -> list[Rows]:
        """What a task computes of each stage's result."""
        height = self.stages[-1].out.frame.height // self.bands
        rows = [Rows(scale=height, offset=0, count=height)]
        for stage in reversed(self.stages[1:]):
            last = rows[0]
            if isinstance(stage, GroupedConv):
                (stride, _), (top, _), reach = stage.stride, stage.padding, (stage.kernel[0] - 1) * stage.dilation[0]
                offset, count = last.offset * stride - top, (last.count - 1) * stride + reach + 1
                last = Rows(scale=last.scale * stride, offset=offset, count=count)
            rows.insert(0, last)
        return rows

    def source_plane(self, number: int) -> int:
        """Floats from one channel to the next of what stage `number` reads."""
        stage = self.stages[number]
        if number == 0 or self.kept[number - 1]:
            return stage.source.frame.plane
        return _in_task(stage.source, self.rows()[number - 1].count).frame.plane

    def prim_func(self, symbol: str, isa: VectorIsa) -> tvm.tirx.PrimFunc:
        sizes = self.sizes()
        with kernel_builder(symbol, sizes) as frame:
            buffers = dict(zip(sizes, frame.buffers, strict=True))
            with T.parallel(0, self.stages[-1].out.batch * self.bands) as task, _results(self, buffers):
                _Task(self, isa, buffers, task // self.bands, task % self.bands).run()
        assert frame.func is not None
        return frame.func


def can_chain(stages: tuple[Kernel, ...], kept: tuple[bool, ...], bands: int) -> bool:
    """Whether a band of each stage can be computed from a band of the one before."""
    if not all(isinstance(stage, Stage) and _whole_blocks(stage) for stage in stages) or not kept[-1]:
        return False
    if any(stage.residual and not wanted for stage, wanted in zip(stages, kept, strict=True)):  # type: ignore[attr-defined]
        return False  # the residual is laid out like the result
    if bands < 1 or stages[-1].out.frame.height % bands:  # type: ignore[attr-defined]
        return False
    pairs = zip(stages, stages[1:], kept, strict=False)
    return all(_follows(before, after, wanted) for before, after, wanted in pairs)  # type: ignore[arg-type]


def _whole_blocks(stage: Stage) -> bool:
    """Whether sums stay in registers, and no filters are added to fill a group."""
    if not isinstance(stage, FlatConv):
        return True
    return stage.tile.split == 1 and stage.groups * stage.group == stage.out.channels


def _follows(before: Stage, after: Stage, wanted: bool) -> bool:
    if after.source != before.out:
        return False
    if isinstance(after, FlatConv):
        return after.taps == (0,) and after.phases == 1
    if isinstance(after, DirectConv):
        return after.kernel == (1, 1) and after.stride == (1, 1) and after.padding == (0, 0)
    # Rows outside of the image have to be zeros: only flat kernels multiply with a mask, and they do it in the task's memory. A filter
    # of more taps would read beyond the halo for them.
    depthwise = isinstance(after, GroupedConv) and after.groups == after.source.channels == after.out.channels
    return depthwise and isinstance(before, FlatConv) and before.taps == (0,) and before.masked and not wanted


def _in_task(layout: TensorLayout, rows: int) -> TensorLayout:
    """So many rows of one image, in a task's memory."""
    frame = layout.frame
    lines = round_up(LINE + rows * frame.pitch, LINE) // LINE + SLACK_LINES
    small = Frame(height=rows, width=frame.width, halo=frame.halo, pitch=frame.pitch, first=LINE, plane=(lines | 1) * LINE)
    return TensorLayout(batch=1, channels=layout.channels, frame=small)


def _band(layout: TensorLayout, rows: int) -> TensorLayout:
    """So many rows of one image, where they are."""
    return TensorLayout(batch=1, channels=layout.channels, frame=replace(layout.frame, height=rows))


@contextmanager
def _results(chain: Chain, buffers: dict[str, Any]) -> Iterator[None]:
    """Add memory for the results that stay in a task."""
    sizes = {
        f"y_{number}": _in_task(stage.out, rows.count).floats
        for number, (stage, rows) in enumerate(zip(chain.stages, chain.rows(), strict=True))
        if not chain.kept[number]
    }
    with thread_memory([(FLOAT * floats, "float32") for floats in sizes.values()]) as pointers:
        for (name, floats), pointer in zip(sizes.items(), pointers, strict=True):
            buffers[name] = T.decl_buffer((floats,), "float32", data=pointer)
        yield


class _Task:
    """Emits what one task does: band `band` of image `image` of every stage."""

    def __init__(self, chain: Chain, isa: VectorIsa, buffers: dict[str, Any], image: Any, band: Any) -> None:
        self.chain, self.isa, self.buffers, self.image, self.band = chain, isa, buffers, image, band

    def run(self) -> None:
        for number, stage in enumerate(self.chain.stages):
            if not self.chain.kept[number] and stage.out.frame.halo:
                self.clear_borders(number)
            kernel, origin = self.placed(number, stage)
            names = {name: f"{name}_{number}" for name in stage.operands} | ({"x": f"y_{number - 1}"} if number else {})
            operands = {name: self.buffers[names[name]] for name in stage.operands}
            if isinstance(kernel, FlatConv):
                FlatBody(kernel, self.isa.lanes, operands, origin).band()
            elif isinstance(kernel, DirectConv):
                DirectBody(kernel, self.isa.lanes, operands, origin).band()
            else:
                GroupedBody(kernel, self.isa, operands, origin).band()

    def placed(self, number: int, stage: Stage) -> tuple[Stage, Origin]:
        """The kernel of the band alone, and where its pixels are."""
        rows, kept = self.chain.rows(), self.chain.kept
        here = rows[number]
        out = _band(stage.out, here.count) if kept[number] else _in_task(stage.out, here.count)
        y = self.start(stage.out, here) if kept[number] else out.frame.first
        mask = stage.out.frame.first + self.row(here) * stage.out.frame.pitch
        changes: dict[str, Any] = {"out": out}
        if number and not kept[number - 1]:
            source = _in_task(stage.source, rows[number - 1].count)
            x = source.frame.first
            # The rows above are in the task's memory.
            changes |= {"padding": (0, stage.padding[1])} if isinstance(stage, GroupedConv) else {}
        else:
            source, stride = replace(stage.source, batch=1), 1 if isinstance(stage, FlatConv) else stage.stride[0]
            x = self.start(stage.source, replace(here, scale=here.scale * stride, offset=here.offset * stride))
        return replace(stage, source=source, **changes), Origin(x=x, y=y, mask=mask)

    def row(self, rows: Rows) -> Any:
        return self.band * rows.scale + rows.offset

    def start(self, layout: TensorLayout, rows: Rows) -> Any:
        """Where a band begins in a tensor of whole images."""
        return self.image * layout.image + layout.frame.first + self.row(rows) * layout.frame.pitch

    def clear_borders(self, number: int) -> None:
        """Zeros around the rows of a result in this task's memory, before it is computed.

        A flat kernel writes those between the rows itself; what a filter of one tap computes from the others is multiplied with zero,
        which does not help against what is no number.
        """
        stage, count = self.chain.stages[number], self.chain.rows()[number].count
        layout = _in_task(stage.out, count)
        frame, lanes, y = layout.frame, self.isa.lanes, self.buffers[f"y_{number}"]
        ends = [frame.first + row * frame.pitch + frame.width for row in range(count)]
        starts = [0, ends[-1]] if isinstance(stage, FlatConv) else ends
        with T.serial(0, layout.channels) as channel:
            for start, at in itertools.product(starts, range(0, LINE, lanes)):
                store(y, channel * frame.plane + start + at, splat(T.float32(0), lanes), lanes)
