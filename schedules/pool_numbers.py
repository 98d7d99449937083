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
    """kind: "max" or "avg". source: the type of the pixels. codes: what they stand for in a mean;
    result: what that is rounded to, None: it becomes a float."""

    kind: str
    source: str
    codes: Quantization | None
    result: Quantization | None

    def check(self) -> None:
        """Raises ValueError for quantizations of what is no mean of codes, or without them."""
        means = self.kind == "avg" and self.source == CODES
        if (self.codes is not None) != means or (self.result is not None and not means):
            given = f"{self.codes} and {self.result}"
            raise ValueError(f"{self.kind} pooling of {self.source} with {given}")

    @property
    def dtype(self) -> str:
        """The type of a maximum, or of a sum."""
        return "int32" if self.codes is not None else self.source

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
        return tirx.max(a, b) if self.source == CODES else maximum(a, b)

    def mean(self, total: Any, count: Any, divisor: Any, lanes: int) -> Any:
        """What is stored for a sum of `count` pixels; divisor: float32, in every lane."""
        if self.codes is None:
            return total / divisor
        real = scaled(total, self.codes, lanes, count) / divisor
        return real if self.result is None else rounded(real, self.result, lanes)
