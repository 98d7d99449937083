"""Several convolutions in one parallel loop: a task computes a band of rows of all of them, one
after the other.

What lies between two layers is often larger than a core's L2: the first layer's loop has written it
to L3, or to memory, before the second one's reads it, perhaps on another core. A task that goes
through all layers with few rows finds everything in L2 (Alwani et al., Fused-Layer CNN
Accelerators, MICRO 2016). Results that nobody else reads live in memory of the task's own and are
never written anywhere else; rows that two neighbouring bands need are computed twice. And one loop
is launched instead of several.
"""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from tvm.tirx.script import builder as T

from subpc.schedules.epilogue import Epilogue
from subpc.schedules.isa import VectorIsa
from subpc.schedules.kernel import KernelBase, thread_buffers
from subpc.schedules.layout import LINE, Frame, Origin, TensorLayout, round_up
from subpc.schedules.operand import Operand, tensor
from subpc.schedules.stage import Rows, Stage
from subpc.schedules.vector import splat, store
from subpc.schedules.workload import Choice

# Lines behind the rows of a plane in a task's memory, which vectors that overrun a row may read.
SLACK_LINES = 3


@dataclass(frozen=True, kw_only=True)
class Joined(KernelBase):
    """stages: the kernels as each would run alone. kept: which of their results others read, too;
    the last one always. bands: tasks an image.

    Operands: those of each stage, `_<number>` after their names, the last stage's first; without x,
    which is the result before, and without y where nobody else reads it. Where x is in a task's
    memory, the index counts in planes of `source_plane` floats. Result, epilogue and schedule are
    those of the first stage, whose layer it is called for.
    """

    stages: tuple[Stage, ...]
    kept: tuple[bool, ...]
    bands: int

    def __post_init__(self) -> None:
        if not can_join(self.stages, self.kept, self.bands):
            raise ValueError(
                f"{', '.join(stage.family for stage in self.stages)} cannot be computed in"
                f" {self.bands} bands"
            )

    @property
    def family(self) -> str:
        return "joined_" + "_".join(stage.family.removesuffix("_f32") for stage in self.stages)

    @property
    def flops(self) -> int:
        """Without the rows that are computed twice."""
        return sum(stage.flops for stage in self.stages)

    @property
    def result_layout(self) -> TensorLayout | None:
        return self.stages[0].out if self.kept[0] else None

    @property
    def epilogue(self) -> Epilogue:
        return self.stages[0].epilogue

    def choice(self, isa: VectorIsa) -> Choice:
        return self.stages[0].choice(isa)

    def sizes(self) -> dict[str, Operand]:
        sizes: dict[str, Operand] = {}
        for number, stage in reversed(list(enumerate(self.stages))):
            left_out = {"x"} if number else set()
            left_out |= set() if self.kept[number] else {"y"}
            sizes |= {
                f"{name}_{number}": size
                for name, size in stage.sizes().items()
                if name not in left_out
            }
        return sizes

    def rows(self) -> list[Rows]:
        """What a task computes of each stage's result."""
        height = self.stages[-1].out.frame.height // self.bands
        rows = [Rows(scale=height, offset=0, count=height)]
        for stage in reversed(self.stages[1:]):
            rows.insert(0, stage.rows_read(rows[0]))
        return rows

    def source_plane(self, number: int) -> int:
        """Floats from one channel to the next of what stage `number` reads."""
        stage = self.stages[number]
        if number == 0 or self.kept[number - 1]:
            return stage.source.frame.plane
        return _in_task(stage.source, self.rows()[number - 1].count).frame.plane

    def emit(self, b: dict[str, Any], isa: VectorIsa) -> None:
        with T.parallel(0, self.stages[-1].out.batch * self.bands) as task, _results(self, b):
            _Task(self, isa, b, task // self.bands, task % self.bands).run()


def can_join(stages: tuple[Stage, ...], kept: tuple[bool, ...], bands: int) -> bool:
    """Whether a band of each stage can be computed from a band of the one before."""
    if not all(stage.in_bands for stage in stages) or not kept[-1]:
        return False
    if any(
        stage.epilogue.residual and not wanted for stage, wanted in zip(stages, kept, strict=True)
    ):
        return False  # the residual is laid out like the result
    if bands < 1 or stages[-1].out.frame.height % bands:
        return False
    pairs = zip(stages, stages[1:], kept, strict=False)
    return all(
        after.source == before.out and after.follows(before, wanted)
        for before, after, wanted in pairs
    )


def _in_task(layout: TensorLayout, rows: int) -> TensorLayout:
    """So many rows of one image, in a task's memory."""
    frame = layout.frame
    lines = round_up(LINE + rows * frame.pitch, LINE) // LINE + SLACK_LINES
    small = Frame(
        height=rows,
        width=frame.width,
        halo=frame.halo,
        pitch=frame.pitch,
        first=LINE,
        plane=(lines | 1) * LINE,
    )
    return replace(layout, batch=1, frame=small)


def _band(layout: TensorLayout, rows: int) -> TensorLayout:
    """So many rows of one image, where they are."""
    return replace(layout, batch=1, frame=replace(layout.frame, height=rows))


@contextmanager
def _results(joined: Joined, buffers: dict[str, Any]) -> Iterator[None]:
    """Add memory for the results that stay in a task."""
    sizes = {
        f"y_{number}": tensor(_in_task(stage.out, rows.count))
        for number, (stage, rows) in enumerate(zip(joined.stages, joined.rows(), strict=True))
        if not joined.kept[number]
    }
    with thread_buffers([*sizes.values()]) as memory:
        buffers.update(zip(sizes, memory, strict=True))
        yield


class _Task:
    """Emits what one task does: band `band` of image `image` of every stage."""

    def __init__(
        self, joined: Joined, isa: VectorIsa, buffers: dict[str, Any], image: Any, band: Any
    ) -> None:
        self.joined, self.isa, self.buffers, self.image, self.band = (
            joined,
            isa,
            buffers,
            image,
            band,
        )

    def run(self) -> None:
        for number, stage in enumerate(self.joined.stages):
            if not self.joined.kept[number] and stage.out.frame.halo:
                self.clear_borders(number)
            kernel, origin = self.placed(number, stage)
            names = {name: f"{name}_{number}" for name in stage.operands} | (
                {"x": f"y_{number - 1}"} if number else {}
            )
            operands = {name: self.buffers[names[name]] for name in stage.operands}
            kernel.emit_band(operands, self.isa, origin)

    def placed(self, number: int, stage: Stage) -> tuple[Stage, Origin]:
        """The kernel of the band alone, and where its pixels are."""
        rows, kept = self.joined.rows(), self.joined.kept
        here = rows[number]
        out = _band(stage.out, here.count) if kept[number] else _in_task(stage.out, here.count)
        y = self.start(stage.out, here) if kept[number] else out.frame.first
        mask = stage.out.frame.first + self.row(here) * stage.out.frame.pitch
        own = number > 0 and not kept[number - 1]
        if own:
            source = _in_task(stage.source, rows[number - 1].count)
            x = source.frame.first
        else:
            source, stride = replace(stage.source, batch=1), stage.row_stride
            x = self.start(
                stage.source, replace(here, scale=here.scale * stride, offset=here.offset * stride)
            )
        return stage.banded(source, out, own_rows=own), Origin(x=x, y=y, mask=mask)

    def row(self, rows: Rows) -> Any:
        return self.band * rows.scale + rows.offset

    def start(self, layout: TensorLayout, rows: Rows) -> Any:
        """Where a band begins in a tensor of whole images."""
        return self.image * layout.image + layout.frame.first + self.row(rows) * layout.frame.pitch

    def clear_borders(self, number: int) -> None:
        """Zeros around the rows of a result in this task's memory, before it is computed.

        A flat kernel writes those between the rows itself; what a filter of one tap computes from
        the others is multiplied with zero, which does not help against what is no number.
        """
        stage, count = self.joined.stages[number], self.joined.rows()[number].count
        layout = _in_task(stage.out, count)
        frame, lanes, y = layout.frame, self.isa.lanes, self.buffers[f"y_{number}"]
        ends = [frame.first + row * frame.pitch + frame.width for row in range(count)]
        starts = [0, ends[-1]] if stage.zeros_between else ends
        with T.serial(0, layout.channels) as channel:
            for start, at in itertools.product(starts, range(0, LINE, lanes)):
                store(y, channel * frame.plane + start + at, splat(T.float32(0), lanes), lanes)
