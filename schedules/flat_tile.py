"""The schedule of a convolution on flat planes: its register tile, and the order of its tasks."""

from dataclasses import dataclass

from subpc.schedules.block_conv import PREFETCH_CHANNELS


@dataclass(frozen=True, kw_only=True)
class FlatTile:
    """Register tile and task shape: `rows` output channels x `vectors` vectors, `blocks` row blocks
    a task.

    pixels_outer: consecutive tasks share the pixels (and stream the weights) rather than the other
    way round.
    prefetch: how many kept channels ahead input planes are asked for, 0: not at all.
    split: parts of the input channels that a task takes one after the other for all its row blocks,
    sums waiting in the output, so that the planes of a part stay in L1.
    tail: the last pixel tile of a plane has as few vectors as its pixels need.
    phase_rows: the phase planes of a strided convolution are written row by row of all planes, by
    the threads that read them.
    joined, bands: as many of the next layers as can be, and no more than this, are computed in the
    same parallel loop, in so many bands of rows (joined.py).
    """

    rows: int
    vectors: int
    blocks: int
    pixels_outer: bool
    prefetch: int = PREFETCH_CHANNELS
    split: int = 1
    tail: bool = False
    phase_rows: bool = False
    joined: int = 0
    bands: int = 0
