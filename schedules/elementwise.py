"""Elementwise programs on tensors of one shape with per-channel operands; quantizing, and back,
are such programs."""

import math
from dataclasses import dataclass
from typing import Any

from tvm import tirx

from subpc.schedules.activation import NONE, Activation, constant, let
from subpc.schedules.codes import packed_codes, rounded, values
from subpc.schedules.elementwise_program import (
    BINARY,
    Word,
    check_program,
    evaluate,
    gives_zero,
)
from subpc.schedules.epilogue import Epilogue
from subpc.schedules.isa import VectorIsa
from subpc.schedules.kernel import KernelBase
from subpc.schedules.layout import Frame, TensorLayout, round_up
from subpc.schedules.operand import Operand, tensor
from subpc.schedules.quantization import CODES, Quantization
from subpc.schedules.requantize import PACKED
from subpc.schedules.vector import Register, fetch, for_row, plane_rows, put, splat, units

# Rough cost of a row or plane, and of a float in each operand: enough to size tasks.
ROW_NS, FLOAT_NS = 4.0, 0.08

KINDS = ("tensor", "channel", "image_channel")


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
    program: tuple[Word, ...]
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
        check_program(self.program)

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
        if any(q and q.zero_point for q in (*map(self.codes_of, tensors), self.quantization)):
            return False
        return gives_zero(self.program, [kind == "tensor" for kind in self.inputs])

    @property
    def masked(self) -> bool:
        """Whether a flat pass computes border columns that would not become zeros by themselves."""
        frame = self.layout.frame
        between = self._one_pitch() and frame.pitch > frame.width and not frame.compact
        return self.quantization is not None and between and not self.keeps_zero

    def sizes(self) -> dict[str, Operand]:
        layout, operands = self.layout, {}
        for i, kind in enumerate(self.inputs):
            dtype = CODES if self.codes_of(i) else "float32"
            images = 1 if kind == "channel" else layout.batch
            plane = self.frame_of(i).plane if kind == "tensor" else 1
            operands[f"x{i}"] = Operand(images * layout.channels * plane, dtype)
        mask = {"mask": Operand(layout.frame.plane, CODES)} if self.masked else {}
        return operands | mask | {"y": tensor(layout)}

    def codes_of(self, i: int) -> Quantization | None:
        """What an input is codes of, None where it is floats."""
        return self.quantizations[i] if self.quantizations else None

    def frame_of(self, i: int) -> Frame:
        """How the planes of a tensor lie in memory."""
        return (self.frames[i] if self.frames else None) or self.layout.frame

    def tensor_frames(self) -> list[Frame]:
        """Of all tensors, y last."""
        read = [self.frame_of(i) for i, kind in enumerate(self.inputs) if kind == "tensor"]
        return [*read, self.layout.frame]

    def _one_pitch(self) -> bool:
        return len({frame.pitch for frame in self.tensor_frames()}) == 1

    def rows(self, lanes: int) -> tuple[int, int]:
        """(rows a plane, values a row): one long row where the border columns may be written too,
        or do not exist."""
        frame = self.layout.frame
        if not self._one_pitch():
            return frame.height, frame.width
        if frame.compact or frame.pitch == frame.width or self.masked:
            return 1, frame.pixels
        return (
            (1, round_up(frame.pixels, lanes)) if self.keeps_zero else (frame.height, frame.width)
        )

    def emit(self, b: dict[str, Any], isa: VectorIsa) -> None:
        body = _Body(self, isa, b)
        if all(frame.plane == 1 for frame in self.tensor_frames()):
            body.vectors()
        else:
            body.planes()


class _Body:
    """Emits the loops of one kernel; `b` are its operands by name."""

    def __init__(self, kernel: Elementwise, isa: VectorIsa, b: dict[str, Any]) -> None:
        self.kernel, self.lanes = kernel, isa.lanes
        self.inputs = [b[f"x{i}"] for i in range(len(kernel.inputs))]
        self.mask, self.y = b.get("mask"), b["y"]
        # Four vectors of codes are one store where there are instructions for it.
        self.span = self.lanes * (PACKED if isa.dot and kernel.quantization else 1)
        self.cost = FLOAT_NS * len(kernel.operands)

    def vectors(self) -> None:
        """Planes of one pixel: the channels of an image are the row, and channel operands are
        vectors like the rest."""
        layout = self.kernel.layout
        with units(layout.batch, ROW_NS + self.cost * layout.channels) as image:
            first = image * layout.channels

            def body(at: Any, size: int) -> None:
                places = [at if kind == "channel" else first + at for kind in self.kernel.inputs]
                self.piece(places, {}, first + at, None, size)

            for_row(layout.channels, self.span, body)

    def planes(self) -> None:
        """Rows of planes, whose channel operands are one value each."""
        layout, lanes = self.kernel.layout, self.lanes
        frame, (rows, width) = layout.frame, self.kernel.rows(lanes)
        with plane_rows(layout.batch * layout.channels, rows, ROW_NS + self.cost * width) as (
            plane,
            row,
        ):
            channel = plane % layout.channels if layout.batch > 1 else plane
            places = {"channel": channel, "image_channel": plane}
            scalars = {
                i: Register(lanes, splat(self.read(i, places[kind], 1), lanes))
                for i, kind in enumerate(self.kernel.inputs)
                if kind != "tensor"
            }
            starts = [
                plane * f.plane + row * f.pitch + f.first
                for f in map(self.kernel.frame_of, range(len(self.kernel.inputs)))
            ]
            out = plane * frame.plane + row * frame.pitch + frame.first

            def body(at: Any, size: int) -> None:
                mask = frame.first + at if self.mask is not None else None
                self.piece([start + at for start in starts], scalars, out + at, mask, size)

            for_row(width, self.span, body)

    def piece(
        self, starts: list[Any], scalars: dict[int, Register], out: Any, mask: Any, size: int
    ) -> None:
        """Compute and store `size` neighbouring values of y; starts: where the inputs are, mask:
        where the mask is, None: there is none."""
        lanes, quantization = min(size, self.lanes), self.kernel.quantization
        values = [
            self.value([start + first for start in starts], scalars, lanes)
            if first
            else self.value(starts, scalars, lanes)
            for first in range(0, size, lanes)
        ]
        if quantization is None:
            put(self.y, out, values[0], lanes)
            return
        if len(values) == 1:
            codes = rounded(values[0], quantization, lanes)
        else:
            codes = packed_codes(values, quantization, lanes)
        if mask is not None:
            codes = codes & fetch(self.mask, mask, size)
        put(self.y, out, codes, size)

    def value(self, starts: list[Any], scalars: dict[int, Register], lanes: int) -> Any:
        """Neighbouring values of y before they are rounded."""
        inputs = [
            scalars[i].head(lanes) if i in scalars else self.read(i, start, lanes)
            for i, start in enumerate(starts)
        ]
        value = evaluate(self.kernel.program, inputs, lanes)
        computed = [i for i, kind in enumerate(self.kernel.inputs) if kind != "channel"]
        if self.kernel.quantization is None or all(map(self.kernel.codes_of, computed)):
            return value
        zero, infinity = constant(0.0, lanes), constant(math.inf, lanes)
        # What is not a number becomes 0; codes and constants never give it. A comparison with
        # infinity asks for NaN; "v == v" would be simplified away.
        return let(value, lambda v: tirx.Select(v <= infinity, v, zero), lanes)

    def read(self, i: int, at: Any, lanes: int) -> Any:
        """Neighbouring values of an input, from element `at` on."""
        quantization, value = self.kernel.codes_of(i), fetch(self.inputs[i], at, lanes)
        return value if quantization is None else values(value, quantization, lanes)
