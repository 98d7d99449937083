"""In which numbers a pooling computes: floats, or codes whose sums are exact integers."""

from dataclasses import dataclass
from typing import Any

from tvm import tirx

from subpc.schedules.activation import constant
from subpc.schedules.codes import integers, rounded, scaled, widened
from subpc.schedules.isa import VectorIsa
from subpc.schedules.quantization import CODES, Quantization
from subpc.schedules.special_values import maximum


@dataclass(frozen=True, kw_only=True)
class PoolNumbers:
    """kind: "max" or "avg". codes: what the pixels stand for, None: they are floats. result: what
    a mean of codes is rounded to, None: it becomes a float."""

    kind: str
    codes: Quantization | None
    result: Quantization | None

    @property
    def dtype(self) -> str:
        """The type of a maximum, or of a sum."""
        if self.codes is None:
            return "float32"
        return CODES if self.kind == "max" else "int32"

    def lanes(self, isa: VectorIsa) -> int:
        """How many of them a register holds."""
        return isa.lanes_of(self.dtype)

    def read(self, pixels: Any, lanes: int) -> Any:
        """Pixels as they are combined."""
        return widened(pixels, lanes) if self.dtype == "int32" else pixels

    def outside(self, lanes: int) -> Any:
        """What a tap outside of the image adds to a sum: 0, as a code."""
        if self.codes is None:
            return constant(0.0, lanes)
        return integers(self.codes.zero_point, lanes)

    def nothing(self, lanes: int) -> Any:
        """A sum of no pixels."""
        return constant(0.0, lanes) if self.codes is None else integers(0, lanes)

    def combine(self, a: Any, b: Any) -> Any:
        """The larger one, or the sum."""
        if self.kind == "avg":
            return a + b
        return maximum(a, b) if self.codes is None else tirx.max(a, b)

    def mean(self, total: Any, count: Any, divisor: Any, lanes: int) -> Any:
        """What is stored for a sum of `count` pixels; divisor: float32, in every lane.

        A mean of the codes themselves is exact where it is rounded to the same quantization: halves
        are halves, whatever the scale.
        """
        if self.codes is None:
            return total / divisor
        same = self.codes == self.result
        real = scaled(total, _unscaled(self.codes) if same else self.codes, lanes, count) / divisor
        if self.result is None:
            return real
        return rounded(real, _unscaled(self.result) if same else self.result, lanes)


def _unscaled(quantization: Quantization) -> Quantization:
    return Quantization(scale=1.0, zero_point=quantization.zero_point)
