"""Default register tile and task shape of a convolution: a small cost model, measured, that the tuner starts from."""

from subpc.schedules.conv_flat import Tile
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
) -> Tile:
    """The tile with the least time an output pixel, and tasks neither too small nor too few.

    group: output channels that share their input channels (rows must divide it); row_total: output channels; pixels: flat range;
    channel_flops: operations of one output channel at one pixel.
    """
    rows, vectors = min(
        ((r, v) for r in ROWS for v in VECTORS if _fits(r, v, group, isa)),
        key=lambda tile: _cost(tile[0], tile[1], pixels, isa),
    )
    tiles = batch * -(-pixels // (vectors * isa.lanes))
    row_blocks = row_total // rows
    block_ns = channel_flops * rows * vectors * isa.lanes / FLOPS_PER_NS
    wanted = min(max(1.0, TASK_NS / block_ns), max(1.0, tiles * row_blocks / MIN_TASKS))
    blocks = max(b for b in range(1, row_blocks + 1) if row_blocks % b == 0 and b <= wanted)
    return Tile(rows=rows, vectors=vectors, blocks=blocks, pixels_outer=source_bytes > weight_bytes)


def _fits(rows: int, vectors: int, group: int, isa: VectorIsa) -> bool:
    """Whether sums, one row of loads and a weight fit the registers, and the tile the slack of a plane."""
    return group % rows == 0 and rows * vectors + vectors + 1 <= isa.registers and vectors * isa.lanes <= MAX_TILE


def _cost(rows: int, vectors: int, pixels: int, isa: VectorIsa) -> float:
    """Cycles for one tap, an output pixel and channel: multiply-adds or loads, whichever is more, and the loop."""
    padded = round_up(pixels, vectors * isa.lanes)
    cycles = max(rows * vectors, rows + vectors) / PORTS + CHANNEL_CYCLES
    return padded * cycles / (rows * vectors)
