"""Codes (quantization.py) in registers: what they stand for, and floats rounded to them. Plain
arithmetic, which every instruction set has, but for whole registers of codes."""

from collections.abc import Sequence
from typing import Any

from tvm import tirx

from subpc.schedules.activation import ROUND, constant
from subpc.schedules.quantization import CODES, LARGEST_CODE, Quantization
from subpc.schedules.requantize import PACKED, packed
from subpc.schedules.vector import shuffle, splat

# More than a code, and less than an int32 can be: what is larger would be rounded to the least
# int32.
LARGEST_FLOAT = 65536.0


def typed(scalar: str, lanes: int) -> str:
    """The type of a vector of `lanes` elements, or of one scalar."""
    return f"{scalar}x{lanes}" if lanes > 1 else scalar


def integers(value: Any, lanes: int) -> Any:
    """An int32, known now or only when the kernel runs, in every lane."""
    scalar = tirx.const(value, "int32") if isinstance(value, int) else value
    return splat(scalar, lanes) if lanes > 1 else scalar


def widened(codes: Any, lanes: int) -> Any:
    """Bytes as int32."""
    return tirx.Cast(typed("int32", lanes), codes)


def values(codes: Any, quantization: Quantization, lanes: int) -> Any:
    """What codes stand for, float32; exactly 0 for the zero point."""
    return scaled(widened(codes, lanes), quantization, lanes)


def scaled(total: Any, quantization: Quantization, lanes: int, count: Any = 1) -> Any:
    """What an int32 sum of `count` codes stands for, float32."""
    if quantization.zero_point:
        total = total - integers(count * quantization.zero_point, lanes)
    real = tirx.Cast(typed("float32", lanes), total)
    return real if quantization.scale == 1.0 else real * constant(quantization.scale, lanes)


def rounded(value: Any, quantization: Quantization, lanes: int) -> Any:
    """The codes of float32 values as ONNX defines them: divided by the scale, half to even, then
    the zero point added; what is not a number becomes code 0.

    ROUND, a multiple of 256, leaves the nearest integer in the low bits of the sum: its lowest byte
    is the code. An even zero point can be added in the same step, because ties stay even.
    """
    if quantization.scale != 1.0:
        value = value / constant(quantization.scale, lanes)
    odd = quantization.zero_point % 2
    shifted = value + constant(ROUND + quantization.zero_point - odd, lanes)
    if odd:
        shifted = shifted + constant(1.0, lanes)
    low, high = constant(ROUND, lanes), constant(ROUND + LARGEST_CODE, lanes)
    bits = tirx.reinterpret(typed("int32", lanes), tirx.min(tirx.max(shifted, low), high))
    return tirx.Cast(typed(CODES, lanes), bits)


def packed_codes(values: Sequence[Any], quantization: Quantization, lanes: int) -> Any:
    """The same codes of two or four vectors, one behind the other, which are as many as a register
    has."""
    largest, zero = constant(LARGEST_FLOAT, lanes), quantization.zero_point
    steps = []
    for value in values:
        if quantization.scale != 1.0:
            value = value / constant(quantization.scale, lanes)
        steps.append(tirx.min(value, largest))
    codes = packed(steps * (PACKED // len(steps)), integers(zero, 1) if zero else None, lanes)
    size = len(steps) * lanes
    return codes if len(steps) == PACKED else shuffle([codes], list(range(size)))
