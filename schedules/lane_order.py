"""Registers whose lanes are pixels by turns, brought into the order of memory."""

from collections.abc import Sequence
from typing import Any

from tvm import tirx

from subpc.schedules.quantization import CODES
from subpc.schedules.requantize import narrowed, saturated_bytes, saturated_words
from subpc.schedules.vector import Register, shuffle

# Lanes of 32 bits in the parts of a register that packing instructions work on.
QUARTER = 4


def columns_in_order(sums: Sequence[Register], lanes: int) -> list[Any]:
    """As many vectors as registers: lane d of register k of n is pixel n * d + k."""
    count = len(sums)
    if count == 1:
        return [sums[0].get()]
    parts = [register.get() for register in sums]
    return [
        shuffle(parts, [p % count * lanes + p // count for p in range(first, first + lanes)])
        for first in range(0, count * lanes, lanes)
    ]


def packed_columns(values: Sequence[Any], zero: Any, lanes: int) -> Any:
    """1, 2 or 4 vectors of steps (float32), lane d of vector k of n being pixel n * d + k, as codes
    in order; zero: the zero point, int32, or None for 0."""
    if len(values) == 1:
        return narrowed(values[0], zero, lanes)
    # Where the four bytes of a vector lie in a part, once packed: the third comes second.
    slots, pairs = ((0, 2, 1, 3), [(0, 2), (1, 3)]) if len(values) == 4 else ((0, 1), [(0, 1)] * 2)
    words = [saturated_words(values[i], values[j], zero, lanes) for i, j in pairs]
    codes = tirx.reinterpret(f"{CODES}x{4 * lanes}", saturated_bytes(words[0], words[1], lanes))
    within = [slots[k] * QUARTER + lane for lane in range(QUARTER) for k in range(len(values))]
    # Of two vectors, which are in each part twice, the first half of a part is taken, all at once:
    # byte by byte LLVM finds no instruction for it.
    repeated = within * (4 // len(values))
    order = [part * len(repeated) + byte for part in range(lanes // QUARTER) for byte in repeated]
    codes = shuffle([codes], order)
    if len(values) == 4:
        return codes
    halves = tirx.reinterpret(f"int64x{lanes // 2}", codes)
    halves = shuffle([halves], list(range(0, lanes // 2, 2)))
    return tirx.reinterpret(f"{CODES}x{2 * lanes}", halves)
