"""Default tile of a Winograd convolution, and what it costs beside a direct one: measured, in cycles, as in choose_tile.py."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from subpc.schedules.choose_tile import CHANNEL_CYCLES, FMA_LATENCY, MIN_TASKS, PORTS
from subpc.schedules.isa import VectorIsa
from subpc.schedules.winograd import WinogradTile
from subpc.schedules.winograd_transforms import POSITIONS, STEP, slots

# Cycles of the input transform for each lane of a row of tiles and channel: its 16 results go to the second cache.
INPUT_CYCLES = 3.0
# Cycles of the output transform, the transposition and the stores for each tile and vector of output channels.
OUTPUT_CYCLES = 60.0
# Cycles of one load, filters or broadcast, where loads are the limit.
LOAD_CYCLES = 0.5
# Floats of filters that come from beyond the second cache in a cycle, and how many floats of them it may hold.
STREAMED_FLOATS, CACHED_FLOATS = 2.0, 256 * 1024
# Bytes of transformed input that the caches of the cores keep until they are read.
MAX_BAND_BYTES = 2 << 20
# How many times larger than the transformed pixels the filters may be, before tasks share them rather than pixels.
MAX_FILTERS = 4
ROWS, VECTORS, BLOCKS = (1, 2, 3, 4), (1, 2), (1, 2, 4)


@dataclass(frozen=True, kw_only=True)
class WinogradShape:
    """What a tile is chosen for. size: output rows and columns; channels: of the input, of the output; kept: input channels that an
    output channel reads on average; group: output channels that share them; disjoint: whether no pixel may be in two tiles."""

    size: tuple[int, int]
    channels: tuple[int, int]
    kept: float
    group: int
    disjoint: bool

    @property
    def tiles(self) -> tuple[int, int]:
        """Tiles of 2x2 pixels down and across."""
        return -(-self.size[0] // STEP), -(-self.size[1] // STEP)

    def grid(self, rows: int, columns: int) -> tuple[int, int]:
        """Register tiles down and across."""
        return -(-self.tiles[0] // rows), -(-self.tiles[1] // columns)


def register_tiles(shape: WinogradShape, isa: VectorIsa) -> Iterator[tuple[int, int, int]]:
    """(rows, columns, vectors) whose sums, filters and one broadcast fit the registers."""
    for rows, columns, vectors in itertools.product(ROWS, range(1, isa.lanes + 1), VECTORS):
        inside = rows <= shape.tiles[0] and columns <= shape.tiles[1]
        overlap = shape.tiles[0] % rows or shape.tiles[1] % columns
        held = rows * columns * vectors + vectors < isa.registers
        if inside and held and shape.group % (vectors * isa.lanes) == 0 and not (shape.disjoint and overlap):
            yield rows, columns, vectors


def choose_winograd_tile(shape: WinogradShape, isa: VectorIsa) -> WinogradTile | None:
    """The tile with the least cost; None if there is none."""
    tiles = list(register_tiles(shape, isa))
    if not tiles:
        return None
    rows, columns, vectors = min(tiles, key=lambda tile: winograd_cost(tile, shape, isa))
    down, across = shape.grid(rows, columns)
    bands = next((b for b in bands_of(down) if band_bytes(shape, rows, columns, b) <= MAX_BAND_BYTES), down)
    in_band = down // bands * across
    tasks = in_band * shape.channels[1] // (vectors * isa.lanes)
    blocks = 2 if in_band % 2 == 0 and tasks >= 2 * MIN_TASKS else 1
    # A thread that transforms pixels and multiplies them itself finds them in its own cache; filters that fill it are shared out instead.
    outer = 4 * POSITIONS * shape.kept * shape.channels[1] < MAX_FILTERS * band_bytes(shape, rows, columns, bands)
    return WinogradTile(rows=rows, columns=columns, vectors=vectors, blocks=blocks, bands=bands, pixels_outer=outer)


def bands_of(down: int) -> list[int]:
    """Numbers of bands that so many rows of register tiles can be cut into, the fewest first."""
    return [count for count in range(1, down + 1) if down % count == 0]


def band_bytes(shape: WinogradShape, rows: int, columns: int, bands: int) -> int:
    """Transformed input of one band."""
    down, across = shape.grid(rows, columns)
    return 4 * POSITIONS * (down // bands) * across * rows * slots(columns) * shape.channels[0]


def winograd_cost(tile: tuple[int, int, int], shape: WinogradShape, isa: VectorIsa) -> float:
    """Cycles of a whole image with (rows, columns, vectors): products, both transforms, and filters that no cache holds."""
    rows, columns, vectors = tile
    down, across = shape.grid(rows, columns)
    tiles, row_blocks = rows * columns, shape.channels[1] / (vectors * isa.lanes)
    multiply = max(tiles * vectors / PORTS, LOAD_CYCLES * (tiles + vectors), FMA_LATENCY) + CHANNEL_CYCLES
    products = POSITIONS * shape.kept * row_blocks * multiply * down * across
    filters = POSITIONS * shape.kept * shape.channels[1]
    streamed = filters / STREAMED_FLOATS if filters > CACHED_FLOATS else 0.0
    into = INPUT_CYCLES * slots(columns) * rows * shape.channels[0] * down * across
    out = OUTPUT_CYCLES * tiles * vectors * row_blocks * down * across
    return max(products, streamed) + into + out
