"""Default register tile and task shape of a convolution: a small cost model, measured, that the tuner starts from."""

from subpc.schedules.direct_conv import DirectTile
from subpc.schedules.flat_conv import FlatTile
from subpc.schedules.isa import VectorIsa
from subpc.schedules.layout import MAX_TILE, round_up

# Cycles that a register tile costs for each kept channel besides its loads and multiply-adds: index, address, loop.
CHANNEL_CYCLES = 0.75
# Vectors that a core loads, and multiplies, in one cycle.
PORTS = 2
# A task should take at least this long: starting one costs 20 ns, and a smaller one keeps no operand in L1 ...
TASK_NS = 3000.0
# ... but there should be enough tasks that the last one does not leave other threads waiting.
MIN_TASKS = 96
# Useful work of one core, for sizing tasks only.
FLOPS_PER_NS = 200.0
ROWS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12)
VECTORS = (1, 2, 3, 4, 6)


def choose_tile(
    *,
    group: int,
    row_total: int,
    pixels: int,
    batch: int,
    channel_flops: int,
    weight_bytes: int,
    source_bytes: int,
    isa: VectorIsa,
) -> FlatTile:
    """The tile with the least time an output pixel, and tasks neither too small nor too few.

    group: output channels that share their input channels (rows must divide it); row_total: output channels; pixels: flat range;
    channel_flops: operations of one output channel at one pixel.
    """
    rows, vectors = min(
        ((r, v) for r in ROWS for v in VECTORS if flat_fits(r, v, group, isa)),
        key=lambda tile: flat_cost(tile[0], tile[1], pixels, isa),
    )
    tiles = batch * -(-pixels // (vectors * isa.lanes))
    row_blocks = row_total // rows
    block_ns = channel_flops * rows * vectors * isa.lanes / FLOPS_PER_NS
    wanted = min(max(1.0, TASK_NS / block_ns), max(1.0, tiles * row_blocks / MIN_TASKS))
    blocks = max(b for b in range(1, row_blocks + 1) if row_blocks % b == 0 and b <= wanted)
    return FlatTile(rows=rows, vectors=vectors, blocks=blocks, pixels_outer=source_bytes > weight_bytes)


def flat_fits(rows: int, vectors: int, group: int, isa: VectorIsa) -> bool:
    """Whether sums, one row of loads and a weight fit the registers, and the tile the slack of a plane."""
    return group % rows == 0 and rows * vectors + vectors + 1 <= isa.registers and vectors * isa.lanes <= MAX_TILE


def flat_cost(rows: int, vectors: int, pixels: int, isa: VectorIsa, *, tail: bool = False) -> float:
    """Cycles for one tap, an output pixel and channel: multiply-adds or loads, whichever is more, and the loop."""
    padded = round_up(pixels, (1 if tail else vectors) * isa.lanes)
    cycles = max(rows * vectors, rows + vectors) / PORTS + CHANNEL_CYCLES
    return padded * cycles / (rows * vectors)


# Cycles of one broadcast or weight load in a direct convolution, where loads are the limit (1x1, stride 2).
LOAD_CYCLES = 0.75
# Cycles until the sum of a multiply-add can be added to again.
FMA_LATENCY = 4
# Share of its time that a tile loses for each register that it needs and does not get.
SPILL_COST = 0.01
DIRECT_ROWS = (1, 2, 3, 4)
DIRECT_VECTORS = (1, 2)


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

    group: output channels that share their input channels; size: output rows and columns; stride, dilation: along a row;
    disjoint: whether every pixel has to belong to one tile only.
    """
    rows, columns, vectors = min(
        (
            (r, c, v)
            for r in DIRECT_ROWS
            for c in range(1, size[1] + 1)
            for v in DIRECT_VECTORS
            if direct_fits(r, c, v, group, size, disjoint, isa)
        ),
        key=lambda tile: direct_cost(tile[0], tile[1], tile[2], size, kernel, stride, dilation, isa),
    )
    return DirectTile(rows=rows, columns=columns, vectors=vectors, pixels_outer=source_bytes > weight_bytes)


def direct_fits(rows: int, columns: int, vectors: int, group: int, size: tuple[int, int], disjoint: bool, isa: VectorIsa) -> bool:
    """Whether the sums and a weight fit the registers, and the tile the image."""
    if group % (vectors * isa.lanes) or rows > size[0] or (disjoint and size[1] % columns):
        return False
    return rows * columns * vectors + vectors < isa.registers


def direct_cost(
    rows: int, columns: int, vectors: int, size: tuple[int, int], kernel: tuple[int, int], stride: int, dilation: int, isa: VectorIsa
) -> float:
    """Cycles of one input channel for all pixels, a vector of channels; the last rows may need a smaller tile."""
    full = _direct_tile_cycles(rows, columns, vectors, kernel, stride, dilation, isa)
    rest = _direct_tile_cycles(size[0] % rows, columns, vectors, kernel, stride, dilation, isa) if size[0] % rows else 0.0
    return -(-size[1] // columns) * (size[0] // rows * full + rest) / vectors


def _direct_tile_cycles(
    rows: int, columns: int, vectors: int, kernel: tuple[int, int], stride: int, dilation: int, isa: VectorIsa
) -> float:
    """Cycles of one input channel in one register tile."""
    height, width = kernel
    sums = rows * columns * vectors
    pixels = rows * len({c * stride + t * dilation for c in range(columns) for t in range(width)})
    # Rows of a tile that overlap in the input tempt the compiler to keep all their pixels.
    live = pixels if rows > 1 and height > 1 else 1
    spilled = max(0, sums + vectors * width + live - isa.registers)
    loads = height * (pixels + vectors * width)
    cycles = max(sums * height * width / PORTS, LOAD_CYCLES * loads, FMA_LATENCY * height * width)
    return (cycles + CHANNEL_CYCLES) * (1 + SPILL_COST * spilled)
