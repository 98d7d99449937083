"""The transforms of Winograd's F(2, 3): three filter taps, two output pixels, four multiplications
(Lavin and Gray, 2015, section 4.1)."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from subpc.schedules.layout import TensorLayout
from subpc.schedules.vector import Register, fetch, shuffle

# Output pixels of a tile along each axis, input pixels that it reads, and positions of the
# transformed tile.
STEP, READ, POSITIONS = 2, 4, 16
# G of F(2, 3): transforms a filter of three taps.
FILTER_TRANSFORM = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])


def transformed_filters(weight: np.ndarray) -> np.ndarray:
    """U = G g G^T of (c_out, c_in, 3, 3) filters: (c_out, c_in, 16)."""
    u: np.ndarray = np.einsum(
        "pu,oiuv,qv->oipq", FILTER_TRANSFORM, weight.astype("float64"), FILTER_TRANSFORM
    )
    return u.reshape(*weight.shape[:2], POSITIONS).astype(weight.dtype)


def tiles_of(out: TensorLayout) -> tuple[int, int]:
    """Tiles of 2x2 pixels down and across an image; the last ones may reach beyond it."""
    return -(-out.frame.height // STEP), -(-out.frame.width // STEP)


def slots(columns: int) -> int:
    """Lanes that hold a row of so many tiles: the next power of two, and two at least, whose three
    vectors have all pixels of a tile."""
    return max(2, 1 << (columns - 1).bit_length())


def input_transform(d: list[Register], lanes: int) -> list[Register]:
    """B^T of F(2, 3) applied to four values."""
    a, b, c, e = (register.get() for register in d)
    return [Register(lanes, value) for value in (a - c, b + c, c - b, b - e)]


def output_transform(m: list[Register], lanes: int) -> list[Register]:
    """A^T of F(2, 3) applied to four values."""
    a, b, c, e = (register.get() for register in m)
    return [Register(lanes, value) for value in (a + b + c, b - c - e)]


def transformed_line(x: Any, first: Any, size: int) -> list[Register]:
    """B^T applied along a line of pixels of x: `size` tiles, whose pixels begin two apart, in three
    loads and four shuffles."""
    a, b, c = (Register(size, fetch(x, first + i * size, size)) for i in range(3))
    even, odd = (
        Register(size, shuffle([a.get(), b.get()], list(range(i, 2 * size, STEP))))
        for i in range(STEP)
    )
    after = [
        Register(size, shuffle([r.get(), c.get()], [*range(1, size), size + i]))
        for i, r in enumerate((even, odd))
    ]
    return input_transform([even, odd, *after], size)


def input_positions(lines: list[list[Register]], lanes: int) -> Iterator[tuple[int, Register]]:
    """V of four transformed lines: each position of a tile, and its value."""
    for j in range(READ):
        for i, value in enumerate(input_transform([line[j] for line in lines], lanes)):
            yield READ * i + j, value


def output_pixels(m: list[Register], lanes: int) -> Iterator[tuple[int, int, Register]]:
    """A^T M A of the values at all positions: (row, column, value) of each pixel of a tile."""
    lines = [output_transform(m[READ * i : READ * i + READ], lanes) for i in range(READ)]
    for j in range(STEP):
        for i, value in enumerate(output_transform([line[j] for line in lines], lanes)):
            yield i, j, value
