"""Fully connected layers: y = activation(x W^T + b) for one row (a matrix-vector product) or many.

The lanes are neighbouring outputs. Weights are packed into panels of 16 outputs, so that every load of them is a whole cache line
and the panel is one stream. A single row is limited by memory: several sums over interleaved inputs keep enough loads in flight.
With more rows every weight vector meets all rows of a register tile.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from tvm.tirx.script import builder as T

from subpc.schedules.activation import NONE, Activation, activate, constant
from subpc.schedules.isa import VectorIsa
from subpc.schedules.kernel import kernel_builder, load, splat
from subpc.schedules.layout import LINE
from subpc.schedules.vector import Register, put_first, units

# Independent sums: two FMA ports with a latency of 4.
SUMS = 8
MAX_ROWS = 8
# Registers besides the sums: weight vectors and the broadcast input.
SPARE_REGISTERS = 4
# One multiply-add of a vector: rough, and dearer for one row, where each weight comes from memory.
FMA_NS, STREAM_NS = 0.2, 0.8


@dataclass(frozen=True, kw_only=True)
class Linear:
    """y[r, o] = activation(bias[o] + sum_k w[o, k] x[r, k]). Operands: x, w (`pack_weights`), bias (`pack_bias`), y."""

    rows: int
    inputs: int
    outputs: int
    activation: Activation = NONE

    @property
    def family(self) -> str:
        return "linear_f32"

    @property
    def operands(self) -> tuple[str, ...]:
        return ("x", "w", "bias", "y")

    @property
    def flops(self) -> int:
        return 2 * self.rows * self.inputs * self.outputs

    @property
    def panels(self) -> int:
        return -(-self.outputs // LINE)

    def pack_weights(self, weights: np.ndarray) -> np.ndarray:
        """(outputs, inputs) -> (panels, inputs, 16), the last panel padded with zeros."""
        padded = np.zeros((self.panels * LINE, self.inputs), "float32")
        padded[: self.outputs] = weights
        return np.ascontiguousarray(padded.reshape(self.panels, LINE, self.inputs).transpose(0, 2, 1))

    def pack_bias(self, bias: np.ndarray | None) -> np.ndarray:
        """(outputs) -> (panels * 16); None is zero."""
        padded = np.zeros(self.panels * LINE, "float32")
        if bias is not None:
            padded[: self.outputs] = bias
        return padded

    def prim_func(self, symbol: str, isa: VectorIsa) -> tvm.tirx.PrimFunc:
        panels = self.panels * LINE
        sizes = (self.rows * self.inputs, panels * self.inputs, panels, self.rows * self.outputs)
        operands = {name: (size, "float32") for name, size in zip(self.operands, sizes, strict=True)}
        with kernel_builder(symbol, operands) as kernel:
            _Body(self, isa, dict(zip(self.operands, kernel.buffers, strict=True))).tasks()
        assert kernel.func is not None
        return kernel.func


class _Body:
    """Emits the loops of one kernel; `b` are its operands by name."""

    def __init__(self, linear: Linear, isa: VectorIsa, b: dict[str, Any]) -> None:
        self.k, self.b, self.lanes = linear, b, isa.lanes
        # Two panels a tile where they come in pairs: twice the use of every broadcast input.
        self.panels = 2 if linear.rows > 1 and isa.lanes == LINE and linear.outputs % (2 * LINE) == 0 else 1
        self.vectors = self.panels * LINE // isa.lanes
        self.rows = max(1, min(linear.rows, MAX_ROWS, (isa.registers - SPARE_REGISTERS) // self.vectors))

    def tasks(self) -> None:
        """One loop over (panels, rows): neighbouring tasks share the weights."""
        k = self.k
        whole, rest = divmod(k.rows, self.rows)
        tiles = whole + (rest > 0)
        cost = k.inputs * self.vectors * (STREAM_NS if k.rows == 1 else FMA_NS * self.rows)
        with units(k.panels // self.panels * tiles, cost) as unit:
            panel, tile = unit // tiles * self.panels, unit % tiles
            if rest == 0 or whole == 0:
                self.tile(panel, tile * self.rows, self.rows)
                return
            with T.If(tile < whole):
                with T.Then():
                    self.tile(panel, tile * self.rows, self.rows)
                with T.Else():
                    self.tile(panel, whole * self.rows, rest)

    def tile(self, panel: Any, row: Any, rows: int) -> None:
        """`rows` rows x `vectors` vectors of outputs, in `split` partial sums over interleaved inputs."""
        k = self.k
        split = max(1, min(SUMS // (rows * self.vectors), k.inputs))
        sums = [[[Register(self.lanes, self.start(panel, v, s)) for s in range(split)] for v in range(self.vectors)] for _ in range(rows)]
        with T.serial(0, k.inputs // split) as i:
            for s in range(split):
                self.multiply_add(sums, s, panel, row, i * split + s)
        for s in range(k.inputs % split):
            self.multiply_add(sums, s, panel, row, k.inputs - k.inputs % split + s)
        for r in range(rows):
            for v in range(self.vectors):
                self.finish(sums[r][v], panel, row + r, v)

    def start(self, panel: Any, vector: int, part: int) -> Any:
        """The first partial sum starts at the bias, the others at zero."""
        if part:
            return constant(0.0, self.lanes)
        return load(self.b["bias"], panel * LINE + vector * self.lanes, self.lanes)

    def multiply_add(self, sums: list[list[list[Register]]], part: int, panel: Any, row: Any, k: Any) -> None:
        """Add input k."""
        inputs = self.k.inputs
        per_panel = LINE // self.lanes
        for v in range(self.vectors):
            at = (panel + v // per_panel) * (inputs * LINE) + k * LINE + v % per_panel * self.lanes
            w = Register(self.lanes, load(self.b["w"], at, self.lanes))
            for r, of_row in enumerate(sums):
                x = splat(self.b["x"][(row + r) * inputs + k], self.lanes)
                of_row[v][part].set(of_row[v][part].get() + w.get() * x)

    def finish(self, parts: list[Register], panel: Any, row: Any, vector: int) -> None:
        """Join the partial sums in pairs, activate, store."""
        while len(parts) > 1:
            half = (len(parts) + 1) // 2
            for low, high in zip(parts, parts[half:], strict=False):
                low.set(low.get() + high.get())
            parts = parts[:half]
        total = parts[0]
        total.set(activate(self.k.activation, total.get(), self.lanes))
        at = panel * LINE + vector * self.lanes
        self.store(row, at, total, vector)

    def store(self, row: Any, output: Any, total: Register, vector: int) -> None:
        """Outputs beyond the last one are padding of the last panel."""
        y, outputs = self.b["y"], self.k.outputs
        index = row * outputs + output
        if outputs % LINE == 0:
            put_first(y, index, total, self.lanes)
            return
        left = outputs % LINE - vector * self.lanes
        with T.If(output + self.lanes <= outputs):
            with T.Then():
                put_first(y, index, total, self.lanes)
            if 0 < left < self.lanes:
                with T.Else():
                    put_first(y, index, total, left)
