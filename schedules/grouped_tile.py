"""The schedule of a grouped convolution: its register tile, and the order of its tasks."""

from dataclasses import dataclass

from subpc.schedules.isa import VectorIsa

# A tile of 8 rows has enough independent sums for two FMA ports with a latency of 4, fewer than 4
# reload too much. A quarter of the registers goes to the sums: weights that find no room in the
# rest are read again from the stack, which costs less than fewer rows.
MIN_ROWS, REGISTERS_A_ROW = 4, 4


@dataclass(frozen=True, kw_only=True)
class GroupedTile:
    """Register tile and order of a grouped convolution.

    rows: output rows of a register tile, None: as `default_rows` says. narrow: vectors of half the
    width, for narrow planes.
    rows_outer: neighbouring tasks take the same rows of neighbouring planes, so that a thread keeps
    its part of the image.
    prefetch: how many tiles ahead the input is asked for, and the output of this tile with it; 0:
    not at all.
    joined, bands: as in flat_tile.FlatTile.
    """

    rows: int | None = None
    narrow: bool = False
    rows_outer: bool = False
    prefetch: int = 0
    joined: int = 0
    bands: int = 0


# Nothing chosen.
DEFAULT_TILE = GroupedTile()


def default_rows(height: int, isa: VectorIsa) -> int:
    """Output rows of a register tile: as the registers allow, and if possible a divisor of the
    height."""
    most = min(isa.registers // REGISTERS_A_ROW, height)
    divisors = [r for r in range(min(MIN_ROWS, most), most + 1) if height % r == 0]
    return divisors[-1] if divisors else most
