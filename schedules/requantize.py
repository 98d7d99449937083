"""From the whole sums of a layer on codes to what is stored: codes again, or float32.

Scales are operands and not constants of the code, so that layers of one shape share a kernel.
Where activation and rounding can change places (none, or one that only limits), the scale of the
result is folded into the multiplier: one multiply-add brings a sum to steps of the result. Integer
sums are exact, and everything after them is a fixed sequence of float32 operations for each
element: the result does not depend on tiles, tasks or threads.

Codes everywhere are what ONNX defines: steps rounded half to even, then the zero point added. Added
before, an odd one would send halves to odd steps, and any would cost bits of float32.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx

from subpc.schedules.activation import Activation, activate
from subpc.schedules.epilogue import Epilogue
from subpc.schedules.operand import Operand, floats
from subpc.schedules.quantization import CODES, LARGEST_CODE, Quantization
from subpc.schedules.vector import fetch, shuffle, splat, store

# Activations that only limit: with the scale folded in, limits of codes do the same.
LIMITS = ("none", "relu", "relu6", "clip")
# Numbers of the operand `levels`, in order.
RESIDUAL, LOW, HIGH, INVERSE, ZERO = range(5)
LEVELS = 16  # a cache line of them
# Codes that one store of an instruction set writes: four vectors of sums.
PACKED = 4
# A sum that may come further than this from zero is limited before it is rounded to an int32.
SAFE = 2.0**30


@dataclass(frozen=True, kw_only=True)
class Requantize(Epilogue):
    """y = activation(multiplier[o] * sum + bias[o] + residual), rounded to codes unless the result
    is float32.

    Steps of the result are codes less the zero point, not rounded. codes: whether the result is
    codes. residual_codes: whether the residual is. limited: codes may have to be cut to less than
    0 .. 255, or sums are so large that rounding them needs it. shifted: whether codes have a zero
    point other than 0.

    Operands: multiplier, bias (floats, filters), levels (LEVELS floats), [residual].
    """

    codes: bool
    residual_codes: bool = False
    limited: bool = False
    shifted: bool = False

    @property
    def folded(self) -> bool:
        """Whether the multiplier brings a sum to steps of the result at once."""
        return self.codes and self.activation.kind in LIMITS

    def zero(self, b: Mapping[str, Any]) -> Any:
        """The zero point of the result, int32; None where it is 0."""
        return tirx.Cast("int32", b["levels"][ZERO]) if self.shifted else None

    def level(self, b: Mapping[str, Any], which: int, lanes: int) -> Any:
        """One number of `levels` in every lane."""
        return splat(b["levels"][which], lanes)

    def value(self, total: Any, b: Mapping[str, Any], channel: Any, at: Any, lanes: int) -> Any:
        """`lanes` int32 sums of one channel as float32 values, or as steps of the result.

        at: the element of the residual that the first lane belongs to.
        """
        multiplier, bias = (splat(b[name][channel], lanes) for name in ("multiplier", "bias"))
        return self.value_of(total, multiplier, bias, b, at, lanes)

    def value_of(
        self, total: Any, multiplier: Any, bias: Any, b: Mapping[str, Any], at: Any, lanes: int
    ) -> Any:
        """The same with a multiplier and a bias for each lane."""
        floats = f"float32x{lanes}"
        value = fma(tirx.Cast(floats, total), multiplier, bias, lanes)
        if self.operand is not None:
            kept = fetch(b[self.operand], at, lanes)
            if self.residual_codes:
                kept = tirx.Cast(floats, tirx.Cast(f"int32x{lanes}", kept))
                value = fma(kept, self.level(b, RESIDUAL, lanes), value, lanes)
            elif self.folded:
                value = fma(kept, self.level(b, INVERSE, lanes), value, lanes)
            else:
                value = value + kept
        if not self.folded:
            value = activate(self.activation, value, lanes)
            if self.codes:
                value = value * self.level(b, INVERSE, lanes)
        if self.codes and self.limited:
            low, high = (self.level(b, which, lanes) for which in (LOW, HIGH))
            value = tirx.max(tirx.min(value, high), low)
        return value


@dataclass(frozen=True, kw_only=True)
class Levels:
    """The numbers behind a Requantize. multiplier, bias: float32 (filters,); levels: float32
    (LEVELS,)."""

    multiplier: np.ndarray
    bias: np.ndarray
    levels: np.ndarray
    limited: bool
    shifted: bool


def levels_of(
    *,
    multiplier: np.ndarray,
    bias: np.ndarray,
    largest_sum: float,
    activation: Activation,
    residual: Quantization | None,
    result: Quantization | None,
) -> Levels:
    """What a layer of these scales needs.

    Args:
        multiplier: scale of the input times scale of each filter, float64 (filters,).
        bias: (filters,). largest_sum: what no sum is larger than, however the input.
        residual: what a residual of codes stands for. result: None for float32.
    """
    levels, cut = np.zeros(LEVELS), False
    folded = result is not None and activation.kind in LIMITS
    offset = residual.scale * residual.zero_point if residual is not None else 0.0
    if not folded:
        bias = bias - offset
        levels[RESIDUAL] = residual.scale if residual is not None else 0.0
    if result is not None:
        levels[INVERSE], levels[ZERO] = 1.0 / result.scale, result.zero_point
        low, high = code_limits(activation, result) if folded else (0, LARGEST_CODE)
        levels[LOW], levels[HIGH] = low - result.zero_point, high - result.zero_point
        cut = (low, high) != (0, LARGEST_CODE)
    if folded:
        assert result is not None
        multiplier = multiplier / result.scale
        bias = (bias - offset) / result.scale
        levels[RESIDUAL] = residual.scale / result.scale if residual is not None else 0.0
    reach = np.abs(multiplier).max(initial=0.0) * largest_sum + np.abs(bias).max(initial=0.0)
    # A float32 residual, and an activation, may be of any size.
    known = folded and reach + LARGEST_CODE * levels[RESIDUAL] < SAFE
    return Levels(
        multiplier=multiplier.astype("float32"),
        bias=bias.astype("float32"),
        levels=levels.astype("float32"),
        limited=result is not None and (cut or not known),
        shifted=result is not None and result.zero_point != 0,
    )


def code_limits(activation: Activation, result: Quantization) -> tuple[int, int]:
    """The codes that an activation of LIMITS leaves."""
    low, high = {
        "none": (-np.inf, np.inf),
        "relu": (0.0, np.inf),
        "relu6": (0.0, 6.0),
        "clip": (activation.low, activation.high),
    }[activation.kind]
    codes = result.codes(np.array([low, high]))
    return int(codes[0]), int(codes[1])


def operands_of(filters: int) -> dict[str, Operand]:
    """The operands that every Requantize has."""
    return {"multiplier": floats(filters), "bias": floats(filters), "levels": floats(LEVELS)}


def fma(a: Any, b: Any, c: Any, lanes: int) -> Any:
    """a * b + c, rounded once."""
    return tirx.call_llvm_pure_intrin(f"float32x{lanes}", "llvm.fma", a, b, c)


def rounded(value: Any, lanes: int) -> Any:
    """float32 as the nearest int32, half to even."""
    nearest = tirx.call_llvm_pure_intrin(f"float32x{lanes}", "llvm.rint", value)
    return tirx.Cast(f"int32x{lanes}", nearest)


def packed(values: Sequence[Any], zero: Any, lanes: int) -> Any:
    """PACKED vectors of steps (float32) as one vector of codes, in order; zero: the zero point,
    int32, or None for 0."""
    words = [
        saturated_words(*pair, zero, lanes) for pair in zip(values[::2], values[1::2], strict=True)
    ]
    codes = saturated_bytes(words[0], words[1], lanes)
    dwords = tirx.reinterpret(f"int32x{lanes}", codes)
    quarters = lanes // 4
    order = [quarter * PACKED + vector for vector in range(PACKED) for quarter in range(quarters)]
    return tirx.reinterpret(f"{CODES}x{4 * lanes}", shuffle([dwords], order))


def saturated_words(first: Any, second: Any, zero: Any, lanes: int) -> Any:
    """Two vectors of steps (float32), rounded, and the zero point (int32) added, as int16: four of
    each by turns."""
    level, suffix = ("avx512", ".512") if lanes == 16 else ("avx2", "")
    words, pack = f"int16x{2 * lanes}", f"llvm.x86.{level}.packssdw{suffix}"
    steps = tirx.call_llvm_pure_intrin(words, pack, rounded(first, lanes), rounded(second, lanes))
    if zero is None:
        return steps
    added = splat(tirx.Cast("int16", zero), 2 * lanes)
    return tirx.call_llvm_pure_intrin(words, "llvm.sadd.sat", steps, added)


def saturated_bytes(first: Any, second: Any, lanes: int) -> Any:
    """Two vectors of int16 as bytes from 0 to 255: eight of each by turns."""
    level, suffix = ("avx512", ".512") if lanes == 16 else ("avx2", "")
    name = f"llvm.x86.{level}.packuswb{suffix}"
    return tirx.call_llvm_pure_intrin(f"int8x{4 * lanes}", name, first, second)


def store_codes(buffer: Any, at: Any, codes: Any, count: int, lanes: int) -> None:
    """The first `count` bytes of a vector, in pieces of powers of two."""
    start = 0
    while start < count:
        size = 1 << ((count - start).bit_length() - 1)
        size = min(size, lanes)
        part = codes if size == lanes else shuffle([codes], [*range(start, start + size)])
        store(buffer, at + start, part, size)
        start += size


def narrowed(value: Any, zero: Any, lanes: int) -> Any:
    """One vector of steps (float32) as `lanes` codes; zero: the zero point, int32, or None for
    0."""
    low, high = (splat(tirx.const(limit, "int32"), lanes) for limit in (0, LARGEST_CODE))
    codes = rounded(value, lanes)
    if zero is not None:
        codes = codes + splat(zero, lanes)
    return tirx.Cast(f"{CODES}x{lanes}", tirx.min(tirx.max(codes, low), high))
