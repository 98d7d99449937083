"""Fully connected layers: y = activation(x W^T + b) for one row (a matrix-vector product) or many.

The lanes are neighbouring outputs. Weights are packed into panels of 16 outputs, so that every load
of them is a whole cache line and the panel is one stream. A single row is limited by memory:
several sums over interleaved inputs keep enough loads in flight. With more rows every weight vector
meets all rows of a register tile.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm.tirx.script import builder as T

from subpc.schedules.activation import NONE, Activation, activate, constant
from subpc.schedules.epilogue import Epilogue
from subpc.schedules.isa import VectorIsa
from subpc.schedules.kernel import KernelBase
from subpc.schedules.layout import LINE, TensorLayout, compact_frame
from subpc.schedules.operand import Operand, floats
from subpc.schedules.vector import Register, load, put_first, splat, units

MAX_ROWS = 8
# Registers besides the sums: weight vectors and the broadcast input.
SPARE_REGISTERS = 4
# One multiply-add of a vector with a single row, where each weight comes from memory: rough.
STREAM_NS = 0.8


@dataclass(frozen=True, kw_only=True)
class Linear(KernelBase):
    """y[r, o] = activation(bias[o] + sum_k w[o, k] x[r, k]). Operands: x, w (`pack_weights`), bias
    (`pack_bias`), y."""

    rows: int
    inputs: int
    outputs: int
    activation: Activation = NONE

    @property
    def family(self) -> str:
        return "linear_f32"

    @property
    def result_layout(self) -> TensorLayout:
        return TensorLayout(batch=self.rows, channels=self.outputs, frame=compact_frame(1, 1))

    @property
    def result_shape(self) -> tuple[int, ...]:
        return self.rows, self.outputs

    @property
    def epilogue(self) -> Epilogue:
        return Epilogue(activation=self.activation)

    @property
    def flops(self) -> int:
        return 2 * self.rows * self.inputs * self.outputs

    @property
    def panels(self) -> int:
        return -(-self.outputs // LINE)

    def pack_weights(self, weights: np.ndarray) -> np.ndarray:
        """(outputs, inputs) -> (panels, inputs, 16), the last panel padded with zeros."""
        padded = np.zeros((self.panels * LINE, self.inputs), self.sizes()["w"].dtype)
        padded[: self.outputs] = weights
        return np.ascontiguousarray(
            padded.reshape(self.panels, LINE, self.inputs).transpose(0, 2, 1)
        )

    def pack_bias(self, bias: np.ndarray | None) -> np.ndarray:
        """(outputs) -> (panels * 16); None is zero."""
        padded = np.zeros(self.panels * LINE, self.sizes()["bias"].dtype)
        if bias is not None:
            padded[: self.outputs] = bias
        return padded

    def sizes(self) -> dict[str, Operand]:
        panels = self.panels * LINE
        sizes = {
            "x": self.rows * self.inputs,
            "w": panels * self.inputs,
            "bias": panels,
            "y": self.rows * self.outputs,
        }
        return {name: floats(count) for name, count in sizes.items()}

    def emit(self, b: dict[str, Any], isa: VectorIsa) -> None:
        _Body(self, isa, b).tasks()


class PanelBody(ABC):
    """Emits the loops of a kernel whose weights lie in panels of 16 outputs.

    rows, outputs: of the result. steps: what a sum takes, one after the other.
    """

    def __init__(self, rows: int, outputs: int, steps: int, isa: VectorIsa) -> None:
        self.all_rows, self.outputs, self.steps = rows, outputs, steps
        self.isa, self.lanes = isa, isa.lanes
        # Two panels a tile where they come in pairs: twice the use of every broadcast input.
        self.panels = 2 if rows > 1 and isa.lanes == LINE and outputs % (2 * LINE) == 0 else 1
        self.vectors = self.panels * LINE // isa.lanes
        self.rows = max(1, min(rows, MAX_ROWS, (isa.registers - SPARE_REGISTERS) // self.vectors))

    @abstractmethod
    def tile(self, panel: Any, row: Any, rows: int) -> None:
        """`rows` rows x `vectors` vectors of outputs."""

    def tasks(self) -> None:
        """One loop over (panels, rows): neighbouring tasks share the weights."""
        whole, rest = divmod(self.all_rows, self.rows)
        tiles = whole + (rest > 0)
        step = STREAM_NS if self.all_rows == 1 else self.isa.fma_ns * self.rows
        cost = self.steps * self.vectors * step
        with units(-(-self.outputs // LINE) // self.panels * tiles, cost) as unit:
            panel, tile = unit // tiles * self.panels, unit % tiles
            if rest == 0 or whole == 0:
                self.tile(panel, tile * self.rows, self.rows)
                return
            with T.If(tile < whole):
                with T.Then():
                    self.tile(panel, tile * self.rows, self.rows)
                with T.Else():
                    self.tile(panel, whole * self.rows, rest)

    def store(self, y: Any, row: Any, output: Any, values: Register, vector: int) -> None:
        """Outputs beyond the last one are padding of the last panel."""
        index = row * self.outputs + output
        if self.outputs % LINE == 0:
            put_first(y, index, values, self.lanes)
            return
        left = self.outputs % LINE - vector * self.lanes
        with T.If(output + self.lanes <= self.outputs):
            with T.Then():
                put_first(y, index, values, self.lanes)
            if 0 < left < self.lanes:
                with T.Else():
                    put_first(y, index, values, left)


class _Body(PanelBody):
    """Sums of floats; `b` are the operands by name."""

    def __init__(self, linear: Linear, isa: VectorIsa, b: dict[str, Any]) -> None:
        super().__init__(linear.rows, linear.outputs, linear.inputs, isa)
        self.kernel, self.buffers = linear, b

    def tile(self, panel: Any, row: Any, rows: int) -> None:
        """`rows` rows x `vectors` vectors of outputs, in `split` partial sums over interleaved
        inputs."""
        k = self.kernel
        split = max(1, min(self.isa.sums // (rows * self.vectors), k.inputs))
        sums = [
            [
                [Register(self.lanes, self.start(panel, v, s)) for s in range(split)]
                for v in range(self.vectors)
            ]
            for _ in range(rows)
        ]
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
        return load(self.buffers["bias"], panel * LINE + vector * self.lanes, self.lanes)

    def multiply_add(
        self, sums: list[list[list[Register]]], part: int, panel: Any, row: Any, k: Any
    ) -> None:
        """Add input k."""
        inputs = self.kernel.inputs
        per_panel = LINE // self.lanes
        for v in range(self.vectors):
            at = (panel + v // per_panel) * (inputs * LINE) + k * LINE + v % per_panel * self.lanes
            w = Register(self.lanes, load(self.buffers["w"], at, self.lanes))
            for r, of_row in enumerate(sums):
                x = splat(self.buffers["x"][(row + r) * inputs + k], self.lanes)
                of_row[v][part].set(of_row[v][part].get() + w.get() * x)

    def finish(self, parts: list[Register], panel: Any, row: Any, vector: int) -> None:
        """Join the partial sums in pairs, activate, store."""
        while len(parts) > 1:
            half = (len(parts) + 1) // 2
            for low, high in zip(parts, parts[half:], strict=False):
                low.set(low.get() + high.get())
            parts = parts[:half]
        total = parts[0]
        total.set(activate(self.kernel.activation, total.get(), self.lanes))
        at = panel * LINE + vector * self.lanes
        self.store(self.buffers["y"], row, at, total, vector)
