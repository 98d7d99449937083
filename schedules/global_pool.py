"""Global average pooling: the mean of every channel plane."""

from dataclasses import dataclass, replace
from typing import Any

from tvm.tirx.script import builder as T

from subpc.schedules.activation import constant
from subpc.schedules.isa import VectorIsa
from subpc.schedules.kernel import PlainKernel
from subpc.schedules.layout import TensorLayout, compact_frame, round_up
from subpc.schedules.operand import Operand, tensor
from subpc.schedules.vector import Register, fetch, shuffle, units

PLANE_NS, FLOAT_NS = 6.0, 0.05


@dataclass(frozen=True, kw_only=True)
class GlobalPool(PlainKernel):
    """y[n * channels + c] = mean of plane (n, c). Operands: x, y."""

    source: TensorLayout

    @property
    def family(self) -> str:
        return "global_pool"

    @property
    def result_layout(self) -> TensorLayout:
        return replace(self.source, frame=compact_frame(1, 1))

    @property
    def result_shape(self) -> tuple[int, ...]:
        return self.source.batch, self.source.channels

    @property
    def flops(self) -> int:
        return (
            self.source.batch
            * self.source.channels
            * self.source.frame.height
            * self.source.frame.width
        )

    def sizes(self) -> dict[str, Operand]:
        return {"x": tensor(self.source), "y": tensor(self.result_layout)}

    def emit(self, b: dict[str, Any], isa: VectorIsa) -> None:
        frame, planes = self.source.frame, self.source.batch * self.source.channels
        with units(planes, PLANE_NS + FLOAT_NS * frame.pixels) as plane:
            total = plane_sum(
                b["x"], plane * frame.plane + frame.first, self._floats(isa.lanes), isa
            )
            T.buffer_store(b["y"], total / constant(float(frame.height * frame.width), 1), [plane])

    def _floats(self, lanes: int) -> int:
        """What a sum may run over: the flat pixel range, whose border columns are zero, and with a
        halo the zeros behind it."""
        frame = self.source.frame
        return round_up(frame.pixels, lanes) if frame.halo else frame.pixels


def plane_sum(x: Any, start: Any, count: int, isa: VectorIsa) -> Any:
    """Sum of `count` floats from `start` on, always in the same order; returns a scalar
    expression."""
    lanes = isa.lanes
    whole = count // lanes
    sums = [Register(lanes, constant(0.0, lanes)) for _ in range(max(1, min(isa.sums, whole)))]
    rounds = whole // len(sums)
    with T.serial(0, rounds) as i:
        for s, register in enumerate(sums):
            register.set(register.get() + fetch(x, start + (i * len(sums) + s) * lanes, lanes))
    for s in range(whole - rounds * len(sums)):
        sums[s].set(sums[s].get() + fetch(x, start + (rounds * len(sums) + s) * lanes, lanes))
    while len(sums) > 1:
        half = (len(sums) + 1) // 2
        for low, high in zip(sums, sums[half:], strict=False):
            low.set(low.get() + high.get())
        sums = sums[:half]
    return _tail(x, start + whole * lanes, count - whole * lanes, _across(sums[0]))


def _across(register: Register) -> Any:
    """The sum of all lanes: halves added until one is left."""
    lanes = register.lanes
    while lanes > 1:
        lanes //= 2
        low, high = (shuffle([register.get()], list(range(at, at + lanes))) for at in (0, lanes))
        register = Register(lanes, low + high)
    return register.get()


def _tail(x: Any, start: Any, count: int, total: Any) -> Any:
    """`total` and the last few floats; the caller's vectors are longer than these."""
    if count == 0:
        return total
    rest = [x[start + i] for i in range(count)]
    while len(rest) > 1:
        rest = [
            rest[i] + rest[i + 1] if i + 1 < len(rest) else rest[i] for i in range(0, len(rest), 2)
        ]
    return total + rest[0]
