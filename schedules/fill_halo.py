"""The zero point around the pixels of a tensor of codes, where a convolution reads it as
padding."""

from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.tirx.script import builder as T

from subpc.schedules.isa import VectorIsa
from subpc.schedules.kernel import PlainKernel
from subpc.schedules.layout import TensorLayout
from subpc.schedules.operand import Operand, tensor
from subpc.schedules.vector import for_row, put, splat, units

# Rough cost of a plane, and of each of its rows: enough to size tasks.
PLANE_NS, ROW_NS = 8.0, 0.5


@dataclass(frozen=True, kw_only=True)
class FillHalo(PlainKernel):
    """Halo rows and columns of y become `zero_point`; its pixels stay, or are filled as well where
    `whole` says so. Operands: y."""

    layout: TensorLayout
    zero_point: int
    whole: bool = False

    @property
    def family(self) -> str:
        return "fill_halo"

    @property
    def flops(self) -> int:
        return 0

    def sizes(self) -> dict[str, Operand]:
        return {"y": tensor(self.layout)}

    def emit(self, b: dict[str, Any], isa: VectorIsa) -> None:
        frame, y = self.layout.frame, b["y"]
        value = tirx.const(self.zero_point, self.layout.dtype)
        around = frame.halo * frame.pitch + frame.halo

        def fill(start: Any, count: int) -> None:
            def body(at: Any, size: int) -> None:
                put(y, start + at, splat(value, size) if size > 1 else value, size)

            for_row(count, 4 * isa.lanes, body)

        cost = PLANE_NS + ROW_NS * frame.height
        with units(self.layout.batch * self.layout.channels, cost) as plane:
            first = plane * frame.plane + frame.first
            if self.whole:
                fill(first - around, around + frame.pixels + around)
                return
            fill(first - around, around)
            with T.serial(0, frame.height - 1) as row:
                fill(first + row * frame.pitch + frame.width, frame.pitch - frame.width)
            fill(first + frame.pixels, around)
