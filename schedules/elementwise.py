"""Elementwise programs on tensors of one layout with per-channel operands; copies of channel planes
(concat, split, shuffle)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from subpc.schedules.activation import NONE, Activation, activate, constant
from subpc.schedules.epilogue import Epilogue
from subpc.schedules.isa import VectorIsa
from subpc.schedules.kernel import KernelBase, PlainKernel
from subpc.schedules.layout import Frame, TensorLayout, round_up
from subpc.schedules.operand import Operand, floats, tensor
from subpc.schedules.special_values import maximum, minimum
from subpc.schedules.vector import Register, fetch, for_row, plane_rows, put, splat, units

# Rough cost of a row or plane, and of a float in each operand: enough to size tasks.
ROW_NS, FLOAT_NS = 4.0, 0.08

KINDS = ("tensor", "channel", "image_channel")
BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "max": maximum,
    "min": minimum,
}


@dataclass(frozen=True)
class Constant:
    """A float32 constant of a program; a type of its own, because to Python the input 1 and the
    constant 1.0 are equal."""

    value: float


@dataclass(frozen=True, kw_only=True)
class Elementwise(KernelBase):
    """y = program(inputs). Operands: x0, x1, ..., y.

    inputs: "tensor" (laid out as `layout`, like y), "channel" (one float a channel) or
    "image_channel" (batch x channels floats).
    program, in postfix order: an int pushes that input, a Constant itself, a name in BINARY
    combines the two topmost values, an Activation is applied to the topmost one.
    """

    layout: TensorLayout
    inputs: tuple[str, ...]
    program: tuple[int | Constant | str | Activation, ...]

    def __post_init__(self) -> None:
        unknown = [k for k in self.inputs if k not in KINDS]
        unknown += [p for p in self.program if isinstance(p, str) and p not in BINARY]
        if unknown:
            raise ValueError(
                f"unknown {', '.join(unknown)}; inputs are {', '.join(KINDS)}, operations"
                f" {', '.join(BINARY)}"
            )
        depth = 0
        for step in self.program:
            depth += -1 if isinstance(step, str) else 0 if isinstance(step, Activation) else 1
            if depth < 1:
                raise ValueError(f"an operation lacks a value: {self.program}")
        if depth != 1:
            raise ValueError(f"the program leaves {depth} values: {self.program}")

    @property
    def family(self) -> str:
        return "elementwise"

    @property
    def result_layout(self) -> TensorLayout:
        return self.layout

    @property
    def epilogue(self) -> Epilogue:
        """What the whole program amounts to behind a sum: a sum of tensors, and the last
        activation."""
        last = [part for part in self.program if isinstance(part, Activation)][-1:]
        return Epilogue(residual="add" in self.program, activation=last[0] if last else NONE)

    @property
    def flops(self) -> int:
        steps = sum(isinstance(p, str | Activation) for p in self.program)
        return (
            steps
            * self.layout.batch
            * self.layout.channels
            * self.layout.frame.height
            * self.layout.frame.width
        )

    @property
    def keeps_zero(self) -> bool:
        """Whether zeros in all tensors give zero whatever the channel operands: then a flat pass
        may cover the border columns."""
        zero: list[bool] = []
        for step in self.program:
            if isinstance(step, Activation):
                zero[-1] = zero[-1] and step.keeps_zero
            elif isinstance(step, str):
                right, left = zero.pop(), zero.pop()
                # A quotient of two zeros is no number, so "div" never counts.
                zero.append(
                    (left or right) if step == "mul" else (left and right and step != "div")
                )
            else:
                zero.append(
                    step.value == 0.0
                    if isinstance(step, Constant)
                    else self.inputs[step] == "tensor"
                )
        return zero[0]

    def sizes(self) -> dict[str, Operand]:
        layout, channels = self.layout, self.layout.channels
        kinds = {
            "tensor": tensor(layout),
            "channel": floats(channels),
            "image_channel": floats(layout.batch * channels),
        }
        return {f"x{i}": kinds[kind] for i, kind in enumerate(self.inputs)} | {"y": tensor(layout)}

    def emit(self, b: dict[str, Any], isa: VectorIsa) -> None:
        emit = self._vectors if self.layout.frame.plane == 1 else self._planes
        emit([*b.values()], isa.lanes)

    def _vectors(self, buffers: list[Any], lanes: int) -> None:
        """Planes of one pixel: the channels of an image are the row, and channel operands are
        vectors like the rest."""
        channels = self.layout.channels
        with units(self.layout.batch, ROW_NS + FLOAT_NS * channels * len(buffers)) as image:

            def body(at: Any, size: int) -> None:
                starts = [
                    at if kind == "channel" else image * channels + at for kind in self.inputs
                ]
                values = [fetch(b, start, size) for b, start in zip(buffers, starts, strict=False)]
                put(buffers[-1], image * channels + at, self._evaluate(values, size), size)

            for_row(channels, lanes, body)

    def _planes(self, buffers: list[Any], lanes: int) -> None:
        frame, channels = self.layout.frame, self.layout.channels
        rows, width = self._rows(lanes)
        cost = ROW_NS + FLOAT_NS * width * len(buffers)
        with plane_rows(self.layout.batch * channels, rows, cost) as (plane, row):
            channel = plane % channels if self.layout.batch > 1 else plane
            scalars = {
                i: Register(
                    lanes, splat(buffers[i][channel if kind == "channel" else plane], lanes)
                )
                for i, kind in enumerate(self.inputs)
                if kind != "tensor"
            }
            start = plane * frame.plane + row * frame.pitch + frame.first

            def body(at: Any, size: int) -> None:
                values = [
                    scalars[i].head(size) if i in scalars else fetch(b, start + at, size)
                    for i, b in enumerate(buffers[:-1])
                ]
                put(buffers[-1], start + at, self._evaluate(values, size), size)

            for_row(width, lanes, body)

    def _rows(self, lanes: int) -> tuple[int, int]:
        """(rows a plane, floats a row): one long row where the border columns may be written too,
        or do not exist."""
        frame = self.layout.frame
        if frame.compact or frame.pitch == frame.width:
            return 1, frame.pixels
        return (
            (1, round_up(frame.pixels, lanes)) if self.keeps_zero else (frame.height, frame.width)
        )

    def _evaluate(self, values: list[Any], lanes: int) -> Any:
        stack: list[Any] = []
        for step in self.program:
            if isinstance(step, Activation):
                stack.append(activate(step, stack.pop(), lanes))
            elif isinstance(step, str):
                right, left = stack.pop(), stack.pop()
                stack.append(BINARY[step](left, right))
            else:
                stack.append(
                    constant(step.value, lanes) if isinstance(step, Constant) else values[step]
                )
        return stack[0]


@dataclass(frozen=True, kw_only=True)
class ChannelCopy(PlainKernel):
    """y[n, out_start + i * out_step] = x[n, source_start + i * source_step] for i < count; other
    planes of y stay as they are.

    Concat is one of these an input, split one an output, and a channel shuffle one a group.
    Operands: x, y.
    """

    batch: int
    frame: Frame
    source_channels: int
    out_channels: int
    count: int
    source_start: int = 0
    source_step: int = 1
    out_start: int = 0
    out_step: int = 1

    def __post_init__(self) -> None:
        ends = (
            self.source_start + (self.count - 1) * self.source_step,
            self.out_start + (self.count - 1) * self.out_step,
        )
        if ends[0] >= self.source_channels or ends[1] >= self.out_channels:
            raise ValueError(
                f"copy of channels up to {ends[0]} to {ends[1]}; there are {self.source_channels}"
                f" and {self.out_channels}"
            )

    @property
    def family(self) -> str:
        return "channel_copy"

    @property
    def flops(self) -> int:
        return 0

    def sizes(self) -> dict[str, Operand]:
        x, y = (
            self.batch * channels * self.frame.plane
            for channels in (self.source_channels, self.out_channels)
        )
        return {"x": floats(x), "y": floats(y)}

    def emit(self, b: dict[str, Any], isa: VectorIsa) -> None:
        plane = self.frame.plane
        with units(self.batch * self.count, ROW_NS + FLOAT_NS * self.frame.pixels) as unit:
            image, i = unit // self.count, unit % self.count
            read = (
                image * self.source_channels + self.source_start + i * self.source_step
            ) * plane + self.frame.first
            write = (
                image * self.out_channels + self.out_start + i * self.out_step
            ) * plane + self.frame.first
            for_row(
                self.frame.pixels,
                isa.lanes,
                lambda at, size: put(b["y"], write + at, fetch(b["x"], read + at, size), size),
            )
