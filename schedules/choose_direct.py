"""Register tiles of direct convolutions: a small cost model, measured, for the default that the
tuner starts from."""

import itertools
from collections.abc import Iterator

from subpc.schedules.direct_conv import DirectConv
from subpc.schedules.direct_tile import DirectTile
from subpc.schedules.family import (
    JOINED_PREFETCHES,
    ORDERS,
    PREFETCHES,
    Family,
    Filters,
    affordable,
    joins,
)
from subpc.schedules.isa import VectorIsa
from subpc.schedules.workload import ConvWorkload

# Cycles of one broadcast or weight load, where loads are the limit (1x1, stride 2).
LOAD_CYCLES = 0.75
# Vectors: of the default, and what the tuner tries.
ROWS, VECTORS, TUNED_VECTORS = (1, 2, 3, 4), (1, 2), (1, 2, 4)


def choose_direct_tile(
    *,
    group: int,
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: int,
    dilation: int,
    weight_bytes: int,
    source_bytes: int,
    disjoint: bool,
    isa: VectorIsa,
) -> DirectTile:
    """The tile of a direct convolution with the least time an output pixel and channel.

    group: output channels that share their input channels; size: output rows and columns; stride,
    dilation: along a row;
    disjoint: whether every pixel has to belong to one tile only.
    """
    rows, columns, vectors = min(
        (
            (r, c, v)
            for r in ROWS
            for c in range(1, size[1] + 1)
            for v in VECTORS
            if direct_fits(r, c, v, group, size, disjoint, isa)
        ),
        key=lambda tile: direct_cost(
            tile[0], tile[1], tile[2], size, kernel, stride, dilation, isa
        ),
    )
    return DirectTile(
        rows=rows, columns=columns, vectors=vectors, pixels_outer=source_bytes > weight_bytes
    )


def direct_fits(
    rows: int,
    columns: int,
    vectors: int,
    group: int,
    size: tuple[int, int],
    disjoint: bool,
    isa: VectorIsa,
) -> bool:
    """Whether the sums and a weight fit the registers, and the tile the image."""
    if group % (vectors * isa.lanes) or rows > size[0] or (disjoint and size[1] % columns):
        return False
    return rows * columns * vectors + vectors < isa.registers


def direct_cost(
    rows: int,
    columns: int,
    vectors: int,
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: int,
    dilation: int,
    isa: VectorIsa,
) -> float:
    """Cycles of one input channel for all pixels, a vector of channels; the last rows may need a
    smaller tile."""
    full = _direct_tile_cycles(rows, columns, vectors, kernel, stride, dilation, isa)
    rest = (
        _direct_tile_cycles(size[0] % rows, columns, vectors, kernel, stride, dilation, isa)
        if size[0] % rows
        else 0.0
    )
    return -(-size[1] // columns) * (size[0] // rows * full + rest) / vectors


def _direct_tile_cycles(
    rows: int,
    columns: int,
    vectors: int,
    kernel: tuple[int, int],
    stride: int,
    dilation: int,
    isa: VectorIsa,
) -> float:
    """Cycles of one input channel in one register tile."""
    height, width = kernel
    sums = rows * columns * vectors
    pixels = rows * len({c * stride + t * dilation for c in range(columns) for t in range(width)})
    # Rows of a tile that overlap in the input tempt the compiler to keep all their pixels.
    live = pixels if rows > 1 and height > 1 else 1
    spilled = max(0, sums + vectors * width + live - isa.registers)
    loads = height * (pixels + vectors * width)
    cycles = max(
        sums * height * width / isa.ports, LOAD_CYCLES * loads, isa.fma_latency * height * width
    )
    return (cycles + isa.loop_cycles) * (1 + isa.spill_cost * spilled)


def direct_tiles(workload: ConvWorkload, filters: Filters, isa: VectorIsa) -> Iterator[DirectTile]:
    _, height, width = workload.out
    tiles = [
        (
            direct_cost(
                r,
                c,
                v,
                (height, width),
                workload.kernel,
                workload.stride[1],
                workload.dilation[1],
                isa,
            ),
            r,
            c,
            v,
        )
        for r, c, v in itertools.product(ROWS, range(1, width + 1), TUNED_VECTORS)
        # With a residual, which may lie where the result goes, no pixel may be in two tiles.
        if direct_fits(r, c, v, filters.group, (height, width), workload.residual, isa)
    ]
    for _, rows, columns, vectors in affordable(tiles):
        shape = {"rows": rows, "columns": columns, "vectors": vectors}
        for outer, ahead in itertools.product(ORDERS, PREFETCHES):
            yield DirectTile(**shape, pixels_outer=outer, prefetch=ahead)
        for outer, ahead, join in itertools.product(ORDERS, JOINED_PREFETCHES, joins(workload)):
            yield DirectTile(**shape, pixels_outer=outer, prefetch=ahead, **join)


def takes_direct(workload: ConvWorkload, filters: int, isa: VectorIsa) -> bool:
    """Whether whole vectors of output channels share their input channels, and nothing is to be
    done with the input first."""
    return workload.flat and filters % isa.lanes == 0 and not workload.clamped


DIRECT = Family(name=DirectConv.SCHEDULES, tile=DirectTile, takes=takes_direct, tiles=direct_tiles)
