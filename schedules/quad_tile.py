"""The schedule of a convolution of codes: its register tile, and what a task computes."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class QuadTile:
    """Register tile: up to `rows` output channels x `vectors` vectors of int32 sums. A task packs
    `band` pixel tiles, and computes `blocks` groups of filters for them.

    filter_lanes: lanes are filters instead of pixels, on a small plane, and `rows` x `vectors` is
    pixels x vectors of filters: whole rows of the plane, or equal parts of one.
    tail: the last pixel tile of a plane has as few vectors as its pixels need.
    """

    rows: int
    vectors: int
    band: int
    blocks: int
    tail: bool = False
    filter_lanes: bool = False
