"""The schedule of a direct convolution: its register tile, and the order of its tasks."""

from dataclasses import dataclass

from subpc.schedules.block_conv import PREFETCH_CHANNELS


@dataclass(frozen=True, kw_only=True)
class DirectTile:
    """`rows` x `columns` output pixels x `vectors` vectors of output channels in registers.

    pixels_outer: consecutive tasks share the pixels (and stream the weights) rather than the other
    way round.
    prefetch: how many kept channels ahead input rows are asked for, 0: not at all.
    joined, bands: as in flat_tile.FlatTile.
    """

    rows: int
    columns: int
    vectors: int
    pixels_outer: bool
    prefetch: int = PREFETCH_CHANNELS
    joined: int = 0
    bands: int = 0
