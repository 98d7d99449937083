"""What this machine can do at most: multiply-adds that wait for nothing, of floats and of bytes,
and reading at full speed. The roofs of a roofline plot.

S. Williams, A. Waterman, D. Patterson: Roofline: an insightful visual performance model, CACM
52(4), 2009.
"""

from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.tirx.script import builder as T

from subpc.schedules.dot import QUAD
from subpc.schedules.isa import VectorIsa
from subpc.schedules.kernel import PlainKernel
from subpc.schedules.layout import LINE
from subpc.schedules.operand import Operand, floats, integers
from subpc.schedules.quad_sums import TileSums
from subpc.schedules.quantization import CODES
from subpc.schedules.vector import Register, load, put

# Two multiply-adds a cycle that take 4 cycles each need 8 in flight; 12 also fit into the 16
# registers of AVX2.
SUMS = 12
# A tile of sums of products of bytes: vectors in a row, and steps until the same pixels come again.
COLUMNS, STEPS = 2, 8


@dataclass(frozen=True, kw_only=True)
class PeakMultiplyAdd(PlainKernel):
    """y = c sums of x * x + sum, `rounds` times over, on each worker, in vectors of so many lanes.

    Operands: x ((SUMS + 2) vectors), y (the same a worker).
    """

    workers: int
    rounds: int
    lanes: int

    @property
    def family(self) -> str:
        return "peak_multiply_add"

    @property
    def vector_floats(self) -> int:
        """Floats of x, and of y for one worker."""
        return (SUMS + 2) * self.lanes

    @property
    def flops(self) -> int:
        return 2 * self.workers * self.rounds * SUMS * self.lanes

    def sizes(self) -> dict[str, Operand]:
        return {"x": floats(self.vector_floats), "y": floats(self.workers * self.vector_floats)}

    def emit(self, b: dict[str, Any], isa: VectorIsa) -> None:
        x, y, lanes = b["x"], b["y"], self.lanes
        with T.parallel(0, self.workers) as worker:
            sums = [Register(lanes, load(x, i * lanes, lanes)) for i in range(SUMS)]
            factor, added = (Register(lanes, load(x, (SUMS + i) * lanes, lanes)) for i in range(2))
            with T.serial(0, self.rounds):
                for total in sums:
                    total.set(total.get() * factor.get() + added.get())
            for i, total in enumerate(sums):
                put(y, worker * self.vector_floats + i * lanes, total.get(), lanes)


@dataclass(frozen=True, kw_only=True)
class PeakMultiplyBytes(PlainKernel):
    """y = a tile of sums of products of four bytes, `rounds` times over, on each worker: with the
    instructions that convolutions of codes have for it, at their best.

    Operands: x (int32, STEPS vectors a column of the tile, and a word a row), y (int32, a tile a
    worker).
    """

    workers: int
    rounds: int
    isa: VectorIsa

    @property
    def family(self) -> str:
        return "peak_multiply_bytes"

    @property
    def rows(self) -> int:
        """Of the tile; what adds in 16 bits keeps pixels of several steps in registers, too."""
        return 4 if self.isa.dot == "madd" and self.isa.registers < 32 else 6

    @property
    def flops(self) -> int:
        return 2 * self.workers * self.rounds * self.rows * COLUMNS * QUAD * self.isa.lanes

    def sizes(self) -> dict[str, Operand]:
        tile = self.rows * COLUMNS * self.isa.lanes
        return {
            "x": integers(STEPS * COLUMNS * self.isa.lanes + self.rows),
            "y": integers(self.workers * tile),
        }

    def emit(self, b: dict[str, Any], isa: VectorIsa) -> None:
        x, y, lanes = b["x"], b["y"], isa.lanes
        words = STEPS * COLUMNS * lanes

        def pixels(quad: Any, _tap: int, column: int) -> Any:
            # Other ones in each step: products of the same would be computed once.
            vector = load(x, (quad % STEPS * COLUMNS + column) * lanes, lanes)
            return tirx.reinterpret(f"{CODES}x{QUAD * lanes}", vector)

        with T.parallel(0, self.workers) as worker:
            sums = [
                [Register(lanes, load(x, v * lanes, lanes), "int32") for v in range(COLUMNS)]
                for _ in range(self.rows)
            ]
            TileSums(
                isa=isa,
                sums=sums,
                quads=self.rounds,
                taps=1,
                pixels=pixels,
                w=x,
                weights=lambda _quad, _tap, row: words + row,
                narrow=None if isa.dot == "vnni" else 4 if isa.registers >= 32 else 2,
                streamed=False,
            ).emit()
            flat = [total for row in sums for total in row]
            for i, total in enumerate(flat):
                put(y, (worker * len(flat) + i) * lanes, total.get(), lanes)


@dataclass(frozen=True, kw_only=True)
class PeakRead(PlainKernel):
    """Each worker adds up `floats` of its own, `rounds` times. Operands: x (workers * floats), y
    (workers * LINE)."""

    workers: int
    floats: int
    rounds: int

    @property
    def family(self) -> str:
        return "peak_read"

    @property
    def flops(self) -> int:
        return self.workers * self.floats * self.rounds

    @property
    def bytes(self) -> int:
        """What one call reads."""
        return self.rounds * self.sizes()["x"].bytes

    def sizes(self) -> dict[str, Operand]:
        return {"x": floats(self.workers * self.floats), "y": floats(self.workers * LINE)}

    def emit(self, b: dict[str, Any], isa: VectorIsa) -> None:
        x, y, lanes, step = b["x"], b["y"], isa.lanes, SUMS * isa.lanes
        with T.parallel(0, self.workers) as worker:
            sums = [
                Register(lanes, load(x, worker * self.floats + i * lanes, lanes))
                for i in range(SUMS)
            ]
            with T.serial(0, self.rounds), T.serial(0, self.floats // step) as block:
                for i, total in enumerate(sums):
                    total.set(
                        total.get()
                        + load(x, worker * self.floats + block * step + i * lanes, lanes)
                    )
            for total in sums[1:]:
                sums[0].set(sums[0].get() + total.get())
            put(y, worker * LINE, sums[0].get(), lanes)
