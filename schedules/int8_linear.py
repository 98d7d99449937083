"""Fully connected layers on codes: uint8 inputs by int8 weights, int32 sums.

The lanes are neighbouring outputs, as in linear.py. Four inputs of one output lie next to each
other, as the instruction that multiplies bytes has them; a panel of 16 outputs is one stream, a
cache line for every four inputs. A single row is limited by memory: lines are asked for ahead.
Without that instruction bytes become int16, whose products are added in pairs, exactly.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx
from tvm.tirx.script import builder as T

from subpc.schedules.dot import QUAD, dot, pair_products
from subpc.schedules.isa import VectorIsa
from subpc.schedules.kernel import KernelBase
from subpc.schedules.layout import LINE, TensorLayout, compact_frame
from subpc.schedules.linear import PanelBody
from subpc.schedules.operand import Operand, integers
from subpc.schedules.quantization import CODES
from subpc.schedules.requantize import Requantize, narrowed, operands_of
from subpc.schedules.vector import Register, load, prefetch, shuffle, splat

# Cache lines between the weights that are multiplied and those that are asked for.
LINES_AHEAD = 32


@dataclass(frozen=True, kw_only=True)
class Int8Linear(KernelBase):
    """y[r, o] = epilogue(start[o] + sum_k w[o, k] x[r, k]).

    Operands: x (uint8), w (int32: four codes each, `pack_weights`), start (int32: minus zero point
    times the sum of the weights), multiplier, bias, levels, [residual (float32 or uint8), as y], y;
    all of the outputs padded to whole panels.
    """

    rows: int
    inputs: int
    outputs: int
    epilogue: Requantize

    @property
    def family(self) -> str:
        return "linear_i8"

    @property
    def result_layout(self) -> TensorLayout:
        dtype = CODES if self.epilogue.codes else "float32"
        return TensorLayout(
            batch=self.rows, channels=self.outputs, frame=compact_frame(1, 1), dtype=dtype
        )

    @property
    def result_shape(self) -> tuple[int, ...]:
        return self.rows, self.outputs

    @property
    def flops(self) -> int:
        return 2 * self.rows * self.inputs * self.outputs

    @property
    def padded_outputs(self) -> int:
        """Outputs of whole panels."""
        return -(-self.outputs // LINE) * LINE

    @property
    def quads(self) -> int:
        """Groups of four inputs."""
        return -(-self.inputs // QUAD)

    def pack_weights(self, codes: np.ndarray) -> np.ndarray:
        """int8 (outputs, inputs) -> int32 (panels, quads, 16), zeros for what is padded."""
        padded = np.zeros((self.padded_outputs, self.quads * QUAD), "int8")
        padded[: self.outputs, : self.inputs] = codes
        panels = padded.reshape(-1, LINE, self.quads, QUAD).transpose(0, 2, 1, 3)
        return np.ascontiguousarray(panels).view("int32")[..., 0]

    def sizes(self) -> dict[str, Operand]:
        sizes = {
            "x": Operand(self.rows * self.inputs, CODES),
            "w": integers(self.padded_outputs * self.quads),
            "start": integers(self.padded_outputs),
        } | operands_of(self.padded_outputs)
        y = Operand(self.rows * self.outputs, self.result_layout.dtype)
        if self.epilogue.residual:
            dtype = CODES if self.epilogue.residual_codes else "float32"
            sizes["residual"] = Operand(y.elements, dtype)
        return sizes | {"y": y}

    def emit(self, b: dict[str, Any], isa: VectorIsa) -> None:
        body = {"vnni": _DotBody, "madd": _ShortsBody}[isa.dot]
        body(self, isa, b).tasks()


class _Body(PanelBody):
    """Sums of codes; `b` are the operands by name."""

    def __init__(self, linear: Int8Linear, isa: VectorIsa, b: dict[str, Any]) -> None:
        super().__init__(linear.rows, linear.outputs, linear.quads, isa)
        self.kernel, self.buffers = linear, b

    @abstractmethod
    def sums(self) -> list[Register]:
        """Registers for a vector of outputs, all zero."""

    @abstractmethod
    def multiply_add(self, sums: list[Register], at: Any, word: Any) -> None:
        """Add the products of four inputs and the weights from element `at` on."""

    @abstractmethod
    def total(self, sums: list[Register]) -> Any:
        """The whole sums of a vector of outputs."""

    def tile(self, panel: Any, row: Any, rows: int) -> None:
        """In `split` partial sums over interleaved quads of inputs."""
        k = self.kernel
        split = max(1, min(self.isa.sums // (rows * self.vectors), k.quads))
        sums = [
            [[self.sums() for _ in range(split)] for _ in range(self.vectors)] for _ in range(rows)
        ]
        # The last quad may lack inputs: it is put together from what there is.
        whole = k.inputs // QUAD
        with T.serial(0, whole // split) as i:
            for part in range(split):
                self.quad(sums, part, panel, row, i * split + part)
        for quad in range(whole - whole % split, k.quads):
            self.quad(sums, quad % split, panel, row, quad)
        for r in range(rows):
            for v in range(self.vectors):
                self.finish(sums[r][v], panel, row + r, v)

    def quad(
        self, sums: list[list[list[list[Register]]]], part: int, panel: Any, row: Any, quad: Any
    ) -> None:
        """Add four inputs of all rows."""
        k, per_panel = self.kernel, LINE // self.lanes
        words = [Register(1, self.word(row + r, quad), "int32") for r in range(len(sums))]
        for v in range(self.vectors):
            at = (panel + v // per_panel) * (k.quads * LINE) + quad * LINE
            if self.all_rows == 1 and v % per_panel == 0:
                prefetch(self.buffers["w"], at + LINES_AHEAD * LINE, LINE, write=False)
            for of_row, word in zip(sums, words, strict=True):
                self.multiply_add(of_row[v][part], at + v % per_panel * self.lanes, word.get())

    def word(self, row: Any, quad: Any) -> Any:
        """Four inputs of a row as one int32; what is beyond the last one counts as 0."""
        k, x = self.kernel, self.buffers["x"]
        at, left = row * k.inputs + quad * QUAD, k.inputs % QUAD
        if left == 0 or not isinstance(quad, int) or quad < k.quads - 1:
            return tirx.reinterpret("int32", load(x, at, QUAD))
        codes = [tirx.Cast("int32", x[at + i]) << tirx.const(8 * i, "int32") for i in range(left)]
        return sum(codes[1:], codes[0])

    def finish(self, parts: list[list[Register]], panel: Any, row: Any, vector: int) -> None:
        """Join the partial sums, requantize, store."""
        k, b, lanes = self.kernel, self.buffers, self.lanes
        for part in parts[1:]:
            for register, other in zip(parts[0], part, strict=True):
                register.set(register.get() + other.get())
        at = panel * LINE + vector * lanes
        total = self.total(parts[0]) + load(b["start"], at, lanes)
        multiplier, bias = load(b["multiplier"], at, lanes), load(b["bias"], at, lanes)
        value = k.epilogue.value_of(total, multiplier, bias, b, row * k.outputs + at, lanes)
        if k.epilogue.codes:
            codes = narrowed(value, k.epilogue.zero(b), lanes)
            self.store(b["y"], row, at, Register(lanes, codes, CODES), vector)
        else:
            self.store(b["y"], row, at, Register(lanes, value), vector)


class _DotBody(_Body):
    """One instruction multiplies four bytes and adds their products."""

    def sums(self) -> list[Register]:
        return [Register(self.lanes, splat(tirx.const(0, "int32"), self.lanes), "int32")]

    def multiply_add(self, sums: list[Register], at: Any, word: Any) -> None:
        lanes = self.lanes
        inputs = tirx.reinterpret(f"{CODES}x{QUAD * lanes}", splat(word, lanes))
        sums[0].set(dot(sums[0].get(), inputs, load(self.buffers["w"], at, lanes), lanes))

    def total(self, sums: list[Register]) -> Any:
        return sums[0].get()


class _ShortsBody(_Body):
    """Bytes become int16; two registers hold two sums of pairs for each output."""

    def sums(self) -> list[Register]:
        zero = splat(tirx.const(0, "int32"), self.lanes)
        return [Register(self.lanes, zero, "int32") for _ in range(2)]

    def multiply_add(self, sums: list[Register], at: Any, word: Any) -> None:
        half = self.lanes // 2
        shorts = f"int16x{QUAD * half}"
        inputs = tirx.Cast(f"int16x{QUAD}", tirx.reinterpret(f"{CODES}x{QUAD}", word))
        inputs = tirx.reinterpret(shorts, splat(tirx.reinterpret("int64", inputs), half))
        for part, register in enumerate(sums):
            codes = load(self.buffers["w"], at + part * half, half)
            weights = tirx.Cast(shorts, tirx.reinterpret(f"int8x{QUAD * half}", codes))
            register.set(register.get() + pair_products(inputs, weights, self.lanes))

    def total(self, sums: list[Register]) -> Any:
        parts = [register.get() for register in sums]
        even, odd = (shuffle(parts, list(range(first, 2 * self.lanes, 2))) for first in (0, 1))
        return even + odd
