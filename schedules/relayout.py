"""Copies between layouts: compact to framed and back, a wider or narrower halo, and the phase
planes of strided convolutions."""

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any

from tvm import tirx
from tvm.tirx.script import builder as T

from subpc.schedules.isa import VectorIsa
from subpc.schedules.kernel import PlainKernel
from subpc.schedules.layout import Frame, TensorLayout
from subpc.schedules.operand import Operand, tensor
from subpc.schedules.quantization import CODES, LARGEST_CODE
from subpc.schedules.vector import (
    Register,
    fetch,
    for_row,
    load,
    plane_rows,
    put,
    rows_of_planes,
    shuffle,
    store,
    units,
)

# Rough cost of copying one row: enough to size tasks.
ROW_NS, FLOAT_NS = 4.0, 0.1


@dataclass(frozen=True, kw_only=True)
class Relayout(PlainKernel):
    """y = x in another layout of the same (batch, channels, height, width) and type. Operands: x,
    y."""

    source: TensorLayout
    out: TensorLayout

    def __post_init__(self) -> None:
        a, b = self.source, self.out
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            raise ValueError(f"Relayout between different shapes or types: {a} and {b}")

    @property
    def family(self) -> str:
        return "relayout"

    @property
    def result_layout(self) -> TensorLayout:
        return self.out

    @property
    def flops(self) -> int:
        return 0

    def sizes(self) -> dict[str, Operand]:
        return {"x": tensor(self.source), "y": tensor(self.out)}

    def emit(self, b: dict[str, Any], isa: VectorIsa) -> None:
        source, out, x, y = self.source.frame, self.out.frame, b["x"], b["y"]
        with plane_rows(
            self.out.batch * self.out.channels, out.height, ROW_NS + FLOAT_NS * out.width
        ) as (plane, row):
            read = plane * source.plane + row * source.pitch + source.first
            write = plane * out.plane + row * out.pitch + out.first
            for_row(
                out.width,
                isa.lanes_of(self.out.dtype),
                lambda at, lanes: put(y, write + at, fetch(x, read + at, lanes), lanes),
            )


@dataclass(frozen=True, kw_only=True)
class PhaseSplit(PlainKernel):
    """Sort the input pixels of a strided convolution by their phase, so that each of its taps
    becomes one constant offset.

    Plane c * len(phases) + p of the output, laid out as `out`, holds pixel (Y * stride_y + py, X *
    stride_x + px) of channel c at (Y, X), where (py, px) = phases[p]: every such pixel of the
    input, and nothing else. `out` has the convolution's output size, and there may be one row or
    column more than that; they fall into the halo, which the caller chooses large enough (`fits`
    says whether a frame is): the columns of data and the padding columns that the taps read must
    not overlap. fill: what the halo of `out` holds, for codes. rows_outer: neighbouring tasks take
    the same rows of neighbouring planes, as a
    convolution does whose threads share out the pixels. Operands: x, y.
    """

    source: TensorLayout
    stride: tuple[int, int]
    phases: tuple[tuple[int, int], ...]
    out: Frame
    fill: int = 0
    rows_outer: bool = False

    def __post_init__(self) -> None:
        if not all(0 <= py < self.stride[0] and 0 <= px < self.stride[1] for py, px in self.phases):
            raise ValueError(f"phases {self.phases} outside stride {self.stride}")
        if not self.fits():
            raise ValueError(f"{self.extent()} pixels of a phase do not fit into {self.out}")

    @property
    def family(self) -> str:
        return "phase_split"

    @property
    def flops(self) -> int:
        return 0

    @property
    def layout(self) -> TensorLayout:
        """The output: one plane a channel and phase."""
        return replace(
            self.source, channels=self.source.channels * len(self.phases), frame=self.out
        )

    @property
    def footprint(self) -> Hashable:
        """The pixels of a phase: fewer than the frame's, or a row or column more."""
        return self.source.frame.height, self.source.frame.width, self.stride, self.phases

    def extent(self) -> tuple[int, int]:
        """Rows and columns of the largest phase."""
        rows = max(_count(self.source.frame.height, self.stride[0], py) for py, _ in self.phases)
        return rows, max(
            _count(self.source.frame.width, self.stride[1], px) for _, px in self.phases
        )

    @property
    def complete(self) -> bool:
        """Whether every phase has at least the pixels of the frame: others are padding."""
        size = (self.source.frame.height, self.source.frame.width)
        return all(
            _count(extent, stride, offset) >= wanted
            for phase in self.phases
            for extent, stride, offset, wanted in zip(
                size, self.stride, phase, (self.out.height, self.out.width), strict=True
            )
        )

    def fits(self) -> bool:
        """Whether every pixel of a phase has a place of its own in the frame."""
        rows, columns = self.extent()
        end = self.out.first + (rows - 1) * self.out.pitch + columns
        return (
            columns <= self.out.pitch
            and rows <= self.out.height + self.out.halo
            and end <= self.out.plane
        )

    def sizes(self) -> dict[str, Operand]:
        return {"x": tensor(self.source), "y": tensor(self.layout)}

    def emit(self, b: dict[str, Any], isa: VectorIsa) -> None:
        if not all(self.extent()):
            return  # an image so small that only padding is read
        planes, rows = self.source.batch * self.source.channels, self.extent()[0]
        # A compact tensor may be the user's, behind which nothing may be read.
        framed = self.source.dtype == CODES and not self.source.frame.compact
        if framed and self.stride[1] == 2 and not self.rows_outer:
            self._emit_codes(b, isa)
            return
        # Pixels further apart than two are picked one by one: no more of them than is needed.
        lanes = isa.lanes_of(self.source.dtype) if self.stride[1] <= 2 else isa.lanes
        cost = len(self.phases) * (ROW_NS + FLOAT_NS * self.out.width)
        with (rows_of_planes if self.rows_outer else plane_rows)(planes, rows, cost) as (
            plane,
            row,
        ):
            for index in range(len(self.phases)):
                if _count(self.source.frame.height, self.stride[0], self.phases[index][0]) == rows:
                    self._row(b, plane, row, index, lanes)
                else:
                    with T.If(row < rows - 1), T.Then():
                        self._row(b, plane, row, index, lanes)

    def _emit_codes(self, b: dict[str, Any], isa: VectorIsa) -> None:
        """Rows of a plane one after the other: each is written in whole vectors, and the next one
        writes over what they leave behind its end."""
        frame, rows = self.source.frame, self.extent()[0]
        cost = rows * len(self.phases) * (ROW_NS + FLOAT_NS * self.out.width)
        planes = self.source.batch * self.source.channels
        with units(planes, cost) as plane, T.serial(0, rows) as row:
            for py in sorted({py for py, _ in self.phases}):
                count = _count(frame.height, self.stride[0], py)
                if count == rows:
                    self._codes_row(b, plane, row, py, isa)
                else:
                    with T.If(row < count), T.Then():
                        self._codes_row(b, plane, row, py, isa)

    def _codes_row(self, b: dict[str, Any], plane: Any, row: Any, py: int, isa: VectorIsa) -> None:
        """Even and odd columns of a row of the source, as rows of their phases."""
        frame, half = self.source.frame, 2 * isa.lanes
        read = plane * frame.plane + (row * self.stride[0] + py) * frame.pitch + frame.first
        order = [*range(0, 2 * half, 2), *range(1, 2 * half, 2)]
        for at in range(0, -(-frame.width // 2), half):
            pixels = Register(2 * half, load(b["x"], read + 2 * at, 2 * half), CODES)
            split = Register(2 * half, shuffle([pixels.get()], order), CODES)
            for px in range(2):
                if (py, px) not in self.phases:
                    continue
                left = _count(frame.width, 2, px) - at
                value = split.slice(px * half, half)
                if left < half:
                    inside = [lane < left for lane in range(half)]
                    value = value & _bytes([LARGEST_CODE * keep for keep in inside])
                    if self.fill:
                        value = value | _bytes([self.fill * (not keep) for keep in inside])
                index = self.phases.index((py, px))
                write = (plane * len(self.phases) + index) * self.out.plane + self.out.first
                store(b["y"], write + row * self.out.pitch + at, value, half)

    def _row(self, b: dict[str, Any], plane: Any, row: Any, index: int, lanes: int) -> None:
        """Copy row `row` of phase `index`."""
        x, y, frame, (py, px) = b["x"], b["y"], self.source.frame, self.phases[index]
        stride = self.stride[1]
        read = plane * frame.plane + (row * self.stride[0] + py) * frame.pitch + (frame.first + px)
        write = (
            (plane * len(self.phases) + index) * self.out.plane
            + row * self.out.pitch
            + self.out.first
        )
        width = _count(frame.width, stride, px)
        for_row(
            width,
            lanes,
            lambda at, size: put(y, write + at, fetch(x, read + at * stride, size, stride), size),
        )


def _bytes(values: list[int]) -> Any:
    """Constant bytes, one a lane."""
    return shuffle([tirx.const(value, CODES) for value in values], list(range(len(values))))


def _count(extent: int, stride: int, phase: int) -> int:
    """How many of the positions 0 .. extent - 1 belong to a phase."""
    return max(0, -(-(extent - phase) // stride))
