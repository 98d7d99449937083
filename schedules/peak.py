"""What this machine can do at most: multiply-adds that wait for nothing, and reading at full speed. The roofs of a roofline plot.

S. Williams, A. Waterman, D. Patterson: Roofline: an insightful visual performance model, CACM 52(4), 2009.
"""

from dataclasses import dataclass

import tvm
from tvm.tirx.script import builder as T

from subpc.schedules.isa import VectorIsa
from subpc.schedules.kernel import kernel_builder, load
from subpc.schedules.layout import LINE
from subpc.schedules.vector import Register, put

# Two multiply-adds a cycle that take 4 cycles each need 8 in flight; 12 also fit into the 16 registers of AVX2.
SUMS = 12


@dataclass(frozen=True, kw_only=True)
class PeakMultiplyAdd:
    """y = c sums of x * x + sum, `rounds` times over, on each worker. Operands: x ((SUMS + 2) vectors), y (the same a worker)."""

    workers: int
    rounds: int

    @property
    def family(self) -> str:
        return "peak_multiply_add"

    @property
    def operands(self) -> tuple[str, ...]:
        return ("x", "y")

    def vector_floats(self, isa: VectorIsa) -> int:
        """Floats of x, and of y for one worker."""
        return (SUMS + 2) * isa.lanes

    def operations(self, isa: VectorIsa) -> int:
        """Floating-point operations of one call."""
        return 2 * self.workers * self.rounds * SUMS * isa.lanes

    @property
    def flops(self) -> int:
        return 2 * self.workers * self.rounds * SUMS

    def prim_func(self, symbol: str, isa: VectorIsa) -> tvm.tirx.PrimFunc:
        lanes, floats = isa.lanes, self.vector_floats(isa)
        with kernel_builder(symbol, {"x": (floats, "float32"), "y": (self.workers * floats, "float32")}) as frame:
            x, y = frame.buffers
            with T.parallel(0, self.workers) as worker:
                sums = [Register(lanes, load(x, i * lanes, lanes)) for i in range(SUMS)]
                a, b = (Register(lanes, load(x, (SUMS + i) * lanes, lanes)) for i in range(2))
                with T.serial(0, self.rounds):
                    for total in sums:
                        total.set(total.get() * a.get() + b.get())
                for i, total in enumerate(sums):
                    put(y, worker * floats + i * lanes, total.get(), lanes)
        assert frame.func is not None
        return frame.func


@dataclass(frozen=True, kw_only=True)
class PeakRead:
    """Each worker adds up `floats` of its own, `rounds` times. Operands: x (workers * floats), y (workers * LINE)."""

    workers: int
    floats: int
    rounds: int

    @property
    def family(self) -> str:
        return "peak_read"

    @property
    def operands(self) -> tuple[str, ...]:
        return ("x", "y")

    @property
    def flops(self) -> int:
        return self.workers * self.floats * self.rounds

    @property
    def bytes(self) -> int:
        """What one call reads."""
        return 4 * self.workers * self.floats * self.rounds

    def prim_func(self, symbol: str, isa: VectorIsa) -> tvm.tirx.PrimFunc:
        lanes, step = isa.lanes, SUMS * isa.lanes
        sizes = {"x": (self.workers * self.floats, "float32"), "y": (self.workers * LINE, "float32")}
        with kernel_builder(symbol, sizes) as frame:
            x, y = frame.buffers
            with T.parallel(0, self.workers) as worker:
                sums = [Register(lanes, load(x, worker * self.floats + i * lanes, lanes)) for i in range(SUMS)]
                with T.serial(0, self.rounds), T.serial(0, self.floats // step) as block:
                    for i, total in enumerate(sums):
                        total.set(total.get() + load(x, worker * self.floats + block * step + i * lanes, lanes))
                for total in sums[1:]:
                    sums[0].set(sums[0].get() + total.get())
                put(y, worker * LINE, sums[0].get(), lanes)
        assert frame.func is not None
        return frame.func
