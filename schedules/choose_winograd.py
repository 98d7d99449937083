"""Default tile of a Winograd convolution, and what it costs beside a direct one: measured, in
cycles, as in choose_direct.py."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from subpc.schedules.choose_direct import takes_direct
from subpc.schedules.choose_flat import MIN_TASKS, USUAL_HALO
from subpc.schedules.family import ORDERS, Family, Filters, affordable
from subpc.schedules.isa import VectorIsa
from subpc.schedules.layout import TensorLayout, halo_frame
from subpc.schedules.operand import floats
from subpc.schedules.winograd import WinogradConv
from subpc.schedules.winograd_tile import WinogradTile, fits
from subpc.schedules.winograd_transforms import POSITIONS, STEP, slots
from subpc.schedules.workload import ConvWorkload

# Cycles of the input transform for each lane of a row of tiles and channel: its 16 results go to
# the second cache.
INPUT_CYCLES = 3.0
# Cycles of the output transform, the transposition and the stores for each tile and vector of
# output channels.
OUTPUT_CYCLES = 60.0
# How many times larger than the transformed pixels the filters may be, before tasks share them
# rather than pixels.
MAX_FILTERS = 4
ROWS, VECTORS, BLOCKS = (1, 2, 3, 4), (1, 2), (1, 2, 4)


@dataclass(frozen=True, kw_only=True)
class WinogradShape:
    """What a tile is chosen for. size: output rows and columns; channels: of the input, of the
    output; kept: input channels that an output channel reads on average; group: output channels
    that share them; disjoint: whether no pixel may be in two tiles."""

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
        if (
            inside
            and held
            and shape.group % (vectors * isa.lanes) == 0
            and not (shape.disjoint and overlap)
        ):
            yield rows, columns, vectors


def choose_winograd_tile(shape: WinogradShape, isa: VectorIsa) -> WinogradTile | None:
    """The tile with the least cost; None if there is none."""
    tiles = list(register_tiles(shape, isa))
    if not tiles:
        return None
    rows, columns, vectors = min(tiles, key=lambda tile: winograd_cost(tile, shape, isa))
    down, across = shape.grid(rows, columns)
    bands = next(
        (
            b
            for b in bands_of(down)
            if floats(band_floats(shape, rows, columns, b)).bytes <= isa.shared_bytes
        ),
        down,
    )
    in_band = down // bands * across
    tasks = in_band * shape.channels[1] // (vectors * isa.lanes)
    blocks = 2 if in_band % 2 == 0 and tasks >= 2 * MIN_TASKS else 1
    # A thread that transforms pixels and multiplies them itself finds them in its own cache;
    # filters that fill it are shared out instead.
    outer = filter_floats(shape) < MAX_FILTERS * band_floats(shape, rows, columns, bands)
    return WinogradTile(
        rows=rows, columns=columns, vectors=vectors, blocks=blocks, bands=bands, pixels_outer=outer
    )


def bands_of(down: int) -> list[int]:
    """Numbers of bands that so many rows of register tiles can be cut into, the fewest first."""
    return [count for count in range(1, down + 1) if down % count == 0]


def filter_floats(shape: WinogradShape) -> float:
    """Transformed filters."""
    return POSITIONS * shape.kept * shape.channels[1]


def band_floats(shape: WinogradShape, rows: int, columns: int, bands: int) -> int:
    """Transformed input of one band."""
    down, across = shape.grid(rows, columns)
    return POSITIONS * (down // bands) * across * rows * slots(columns) * shape.channels[0]


def winograd_cost(tile: tuple[int, int, int], shape: WinogradShape, isa: VectorIsa) -> float:
    """Cycles of a whole image with (rows, columns, vectors): products, both transforms, and filters
    that no cache holds."""
    rows, columns, vectors = tile
    down, across = shape.grid(rows, columns)
    tiles, row_blocks = rows * columns, shape.channels[1] / (vectors * isa.lanes)
    multiply = (
        max(tiles * vectors / isa.ports, (tiles + vectors) / isa.ports, isa.fma_latency)
        + isa.loop_cycles
    )
    products = POSITIONS * shape.kept * row_blocks * multiply * down * across
    filters = filter_floats(shape)
    streamed = filters / isa.streamed_floats if filters > isa.cached_floats else 0.0
    into = INPUT_CYCLES * slots(columns) * rows * shape.channels[0] * down * across
    out = OUTPUT_CYCLES * tiles * vectors * row_blocks * down * across
    return max(products, streamed) + into + out


def winograd_tiles(
    workload: ConvWorkload, filters: Filters, isa: VectorIsa
) -> Iterator[WinogradTile]:
    """rows, columns, vectors: the register tile; blocks: the task; bands: parts of the image;
    pixels_outer: loop order."""
    shape = WinogradShape(
        size=workload.out[1:],
        channels=(workload.source[0], workload.out[0]),
        kept=filters.kept,
        group=filters.group,
        disjoint=workload.residual,
    )
    frame = halo_frame(*workload.source[1:], USUAL_HALO)
    source = TensorLayout(batch=workload.batch, channels=workload.source[0], frame=frame)
    out = TensorLayout(
        batch=workload.batch,
        channels=workload.out[0],
        frame=halo_frame(*workload.out[1:], USUAL_HALO),
    )
    tiles = [(winograd_cost(tile, shape, isa), *tile) for tile in register_tiles(shape, isa)]
    for _, rows, columns, vectors in affordable(tiles):
        down, across = shape.grid(rows, columns)
        for bands, blocks, outer in itertools.product(bands_of(down), BLOCKS, ORDERS):
            task: dict[str, Any] = {"bands": bands, "blocks": blocks, "pixels_outer": outer}
            tile = WinogradTile(rows=rows, columns=columns, vectors=vectors, **task)
            small = (
                bands == down
                or floats(band_floats(shape, rows, columns, bands)).bytes <= 2 * isa.shared_bytes
            )
            if (
                small
                and blocks <= down // bands * across
                and fits(source, out, workload.padding, tile)
            ):
                yield tile


def takes_winograd(workload: ConvWorkload, filters: int, isa: VectorIsa) -> bool:
    """Whether the formula holds: 3x3 filters, every pixel, not grouped."""
    formula = (
        workload.kernel == (3, 3)
        and workload.stride == workload.dilation == (1, 1)
        and workload.groups == 1
    )
    return formula and takes_direct(workload, filters, isa)


WINOGRAD = Family(
    name=WinogradConv.SCHEDULES, tile=WinogradTile, takes=takes_winograd, tiles=winograd_tiles
)
