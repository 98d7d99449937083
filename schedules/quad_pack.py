"""Four vectors of bytes next to each other: pixels of four channels as quads."""

from typing import Any

from tvm import tirx

from subpc.schedules.quantization import CODES
from subpc.schedules.vector import Register, shuffle


def interleaved(rows: list[Any], width: int) -> list[Any]:
    """Four vectors of bytes as four vectors in which every byte of the first is followed by those
    of the others at its place.

    vpunpck works in quarters of 128 bits: the dwords of a vector are dealt out over the quarters
    before, so that what comes out is in order.
    """
    quarters = width // 16
    deal = [dword * quarters + quarter for quarter in range(quarters) for dword in range(4)]
    dealt = [
        Register(width, _bytes(shuffle([_words(row, width)], deal), width), CODES) for row in rows
    ]
    pairs = [
        [_unpacked(dealt[i], dealt[i + 1], width, 1, half) for i in (0, 2)] for half in range(2)
    ]
    return [_unpacked(low, high, width, 2, half).get() for low, high in pairs for half in range(2)]


def _words(value: Any, width: int) -> Any:
    return tirx.reinterpret(f"int32x{width // 4}", value)


def _bytes(value: Any, width: int) -> Any:
    return tirx.reinterpret(f"{CODES}x{width}", value)


def _unpacked(first: Register, second: Register, width: int, size: int, half: int) -> Register:
    """Elements of `size` bytes of the lower or upper half of each 128 bits, by turns."""
    picks = [
        vector * width + quarter * 16 + half * 8 + element * size + byte
        for quarter in range(width // 16)
        for element in range(8 // size)
        for vector in range(2)
        for byte in range(size)
    ]
    return Register(width, shuffle([first.get(), second.get()], picks), CODES)
