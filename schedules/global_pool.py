"""Global average pooling: the mean of every channel plane."""

from dataclasses import dataclass, replace
from typing import Any

from tvm.tirx.script import builder as T

from subpc.schedules.activation import constant
from subpc.schedules.codes import widened
from subpc.schedules.isa import VectorIsa
from subpc.schedules.kernel import PlainKernel
from subpc.schedules.layout import TensorLayout, compact_frame, round_up
from subpc.schedules.operand import Operand, tensor
from subpc.schedules.pool_numbers import PoolNumbers
from subpc.schedules.quantization import CODES, Quantization
from subpc.schedules.vector import Register, fetch, shuffle, units

PLANE_NS, FLOAT_NS = 6.0, 0.05


@dataclass(frozen=True, kw_only=True)
class GlobalPool(PlainKernel):
    """y[n * channels + c] = mean of plane (n, c). Operands: x, y.

    codes, result: as in Pool2d.
    """

    source: TensorLayout
    codes: Quantization | None = None
    result: Quantization | None = None

    def __post_init__(self) -> None:
        self.numbers.check()

    @property
    def numbers(self) -> PoolNumbers:
        """What it computes with."""
        return PoolNumbers(
            kind="avg", source=self.source.dtype, codes=self.codes, result=self.result
        )

    @property
    def family(self) -> str:
        return "global_pool"

    @property
    def result_layout(self) -> TensorLayout:
        dtype = CODES if self.result else "float32"
        return replace(self.source, frame=compact_frame(1, 1), dtype=dtype)

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
            start = plane * frame.plane + frame.first
            total = plane_sum(b["x"], start, self._flat(isa.lanes), isa, self.numbers)
            between = (frame.height - 1) * (frame.pitch - frame.width)
            if self.codes is not None and self.codes.zero_point and between:
                # Zero points where somebody reads them as padding, else zeros: all the same.
                total = total - widened(b["x"][start + frame.width], 1) * between
            count = frame.height * frame.width
            mean = self.numbers.mean(total, count, constant(float(count), 1), 1)
            T.buffer_store(b["y"], mean, [plane])

    def _flat(self, lanes: int) -> int:
        """What a sum may run over: the flat pixel range, whose border columns are zero, and with a
        halo the zeros behind it."""
        frame, zeros = self.source.frame, self.codes is None or self.codes.zero_point == 0
        return round_up(frame.pixels, lanes) if frame.halo and zeros else frame.pixels


def plane_sum(x: Any, start: Any, count: int, isa: VectorIsa, numbers: PoolNumbers) -> Any:
    """Sum of `count` pixels from `start` on, always in the same order; returns a scalar
    expression."""
    lanes, dtype = isa.lanes, numbers.dtype
    whole = count // lanes
    sums = [
        Register(lanes, numbers.nothing(lanes), dtype) for _ in range(max(1, min(isa.sums, whole)))
    ]

    def pixels(at: Any) -> Any:
        return numbers.read(fetch(x, start + at * lanes, lanes), lanes)

    rounds = whole // len(sums)
    with T.serial(0, rounds) as i:
        for s, register in enumerate(sums):
            register.set(register.get() + pixels(i * len(sums) + s))
    for s in range(whole - rounds * len(sums)):
        sums[s].set(sums[s].get() + pixels(rounds * len(sums) + s))
    while len(sums) > 1:
        half = (len(sums) + 1) // 2
        for low, high in zip(sums, sums[half:], strict=False):
            low.set(low.get() + high.get())
        sums = sums[:half]
    rest = [numbers.read(x[start + i], 1) for i in range(whole * lanes, count)]
    return _tail(rest, _across(sums[0], dtype))


def _across(register: Register, dtype: str) -> Any:
    """The sum of all lanes: halves added until one is left."""
    lanes = register.lanes
    while lanes > 1:
        lanes //= 2
        low, high = (shuffle([register.get()], list(range(at, at + lanes))) for at in (0, lanes))
        register = Register(lanes, low + high, dtype)
    return register.get()


def _tail(rest: list[Any], total: Any) -> Any:
    """`total` and the last few pixels, fewer than a vector has."""
    if not rest:
        return total
    while len(rest) > 1:
        rest = [
            rest[i] + rest[i + 1] if i + 1 < len(rest) else rest[i] for i in range(0, len(rest), 2)
        ]
    return total + rest[0]
