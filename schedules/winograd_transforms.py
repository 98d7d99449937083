"""The transforms of Winograd's F(2, 3): three filter taps, two output pixels, four multiplications
(Lavin and Gray, 2015, section 4.1)."""

import numpy as np

from subpc.schedules.layout import TensorLayout
from subpc.schedules.vector import Register

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
