"""Elementwise programs on tensors of one shape with per-channel operands; quantizing, and back,
are such programs."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvm import tirx

from subpc.schedules.activation import NONE, Activation, activate, constant, let
from subpc.schedules.codes import rounded, values
from subpc.schedules.epilogue import Epilogue
from subpc.schedules.isa import VectorIsa
from subpc.schedules.kernel import KernelBase
from subpc.schedules.layout import Frame, TensorLayout, round_up
from subpc.schedules.operand import Operand, tensor
from subpc.schedules.quantization import CODES, Quantization
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

    inputs: "tensor" (of the shape of `layout`, which is y's), "channel" (one value a channel) or
    "image_channel" (batch x channels values).
    program, in postfix order: an int pushes that input, a Constant itself, a name in BINARY
    combines the two topmost values, an Activation is applied to the topmost one.
    frames: of tensors that are laid out otherwise than y. quantizations: what inputs are codes of,
    None for floats; quantization: what y is; the program itself computes in float32. What is not a
    number becomes the zero point.
    """

    layout: TensorLayout
    inputs: tuple[str, ...]
    program: tuple[int | Constant | str | Activation, ...]
    frames: tuple[Frame | None, ...] = ()
    quantizations: tuple[Quantization | None, ...] = ()
    quantization: Quantization | None = None

    def __post_init__(self) -> None:
        for fields in (self.frames, self.quantizations):
            if len(fields) not in (0, len(self.inputs)):
                raise ValueError(f"{len(fields)} frames or quantizations for {self.inputs}")
        if (self.layout.dtype == CODES) != (self.quantization is not None):
            raise ValueError(f"{self.layout.dtype} with {self.quantization}")
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
        may cover the border columns.

        Codes whose zero point is not 0 count as other values: a border holds zero points only where
        somebody needs them.
        """
        tensors = [i for i, kind in enumerate(self.inputs) if kind == "tensor"]
        if any(q and q.zero_point for q in (*map(self._codes_of, tensors), self.quantization)):
            return False
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
        layout, operands = self.layout, {}
        for i, kind in enumerate(self.inputs):
            dtype = CODES if self._codes_of(i) else "float32"
            images = 1 if kind == "channel" else layout.batch
            plane = self._frame_of(i).plane if kind == "tensor" else 1
            operands[f"x{i}"] = Operand(images * layout.channels * plane, dtype)
        return operands | {"y": tensor(layout)}

    def _codes_of(self, i: int) -> Quantization | None:
        return self.quantizations[i] if self.quantizations else None

    def _frame_of(self, i: int) -> Frame:
        """How the planes of a tensor lie in memory."""
        return (self.frames[i] if self.frames else None) or self.layout.frame

    def _tensor_frames(self) -> list[Frame]:
        """Of all tensors, y last."""
        read = [self._frame_of(i) for i, kind in enumerate(self.inputs) if kind == "tensor"]
        return [*read, self.layout.frame]

    def emit(self, b: dict[str, Any], isa: VectorIsa) -> None:
        pixels = all(frame.plane == 1 for frame in self._tensor_frames())
        emit = self._vectors if pixels else self._planes
        emit([*b.values()], isa.lanes)

    def _read(self, i: int, buffer: Any, at: Any, lanes: int) -> Any:
        """Neighbouring values of an input, from element `at` on."""
        quantization, value = self._codes_of(i), fetch(buffer, at, lanes)
        return value if quantization is None else values(value, quantization, lanes)

    def _write(self, buffer: Any, at: Any, inputs: list[Any], lanes: int) -> None:
        """Compute and store neighbouring values of y."""
        value = self._evaluate(inputs, lanes)
        if self.quantization is not None:
            value = rounded(self._number(value, lanes), self.quantization, lanes)
        put(buffer, at, value, lanes)

    def _number(self, value: Any, lanes: int) -> Any:
        """The value, and 0 for what is not a number, which codes alone never give."""
        if all(map(self._codes_of, range(len(self.inputs)))):
            return value
        zero, infinity = constant(0.0, lanes), constant(math.inf, lanes)
        # A comparison with infinity asks for NaN; "v == v" would be simplified away.
        return let(value, lambda v: tirx.Select(v <= infinity, v, zero), lanes)

    def _vectors(self, buffers: list[Any], lanes: int) -> None:
        """Planes of one pixel: the channels of an image are the row, and channel operands are
        vectors like the rest."""
        channels = self.layout.channels
        with units(self.layout.batch, ROW_NS + FLOAT_NS * channels * len(buffers)) as image:

            def body(at: Any, size: int) -> None:
                starts = [
                    at if kind == "channel" else image * channels + at for kind in self.inputs
                ]
                inputs = [self._read(i, buffers[i], s, size) for i, s in enumerate(starts)]
                self._write(buffers[-1], image * channels + at, inputs, size)

            for_row(channels, lanes, body)

    def _planes(self, buffers: list[Any], lanes: int) -> None:
        frame, channels = self.layout.frame, self.layout.channels
        rows, width = self._rows(lanes)
        cost = ROW_NS + FLOAT_NS * width * len(buffers)
        with plane_rows(self.layout.batch * channels, rows, cost) as (plane, row):
            channel = plane % channels if self.layout.batch > 1 else plane
            places = {"channel": channel, "image_channel": plane}
            scalars = {
                i: Register(lanes, splat(self._read(i, buffers[i], places[kind], 1), lanes))
                for i, kind in enumerate(self.inputs)
                if kind != "tensor"
            }
            starts = [
                plane * f.plane + row * f.pitch + f.first
                for f in map(self._frame_of, range(len(self.inputs)))
            ]
            out = plane * frame.plane + row * frame.pitch + frame.first

            def body(at: Any, size: int) -> None:
                inputs = [
                    scalars[i].head(size)
                    if i in scalars
                    else self._read(i, buffers[i], start + at, size)
                    for i, start in enumerate(starts)
                ]
                self._write(buffers[-1], out + at, inputs, size)

            for_row(width, lanes, body)

    def _rows(self, lanes: int) -> tuple[int, int]:
        """(rows a plane, values a row): one long row where the border columns may be written too,
        or do not exist."""
        frame = self.layout.frame
        if any(other.pitch != frame.pitch for other in self._tensor_frames()):
            return frame.height, frame.width
        if frame.compact or frame.pitch == frame.width:
            return 1, frame.pixels
        return (
            (1, round_up(frame.pixels, lanes)) if self.keeps_zero else (frame.height, frame.width)
        )

    def _evaluate(self, inputs: list[Any], lanes: int) -> Any:
        stack: list[Any] = []
        for step in self.program:
            if isinstance(step, Activation):
                stack.append(activate(step, stack.pop(), lanes))
            elif isinstance(step, str):
                right, left = stack.pop(), stack.pop()
                stack.append(BINARY[step](left, right))
            else:
                stack.append(
                    constant(step.value, lanes) if isinstance(step, Constant) else inputs[step]
                )
        return stack[0]
