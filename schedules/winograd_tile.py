"""The schedule of a Winograd convolution, and which images it fits."""

from dataclasses import dataclass

from subpc.schedules.layout import TensorLayout
from subpc.schedules.winograd_transforms import READ, STEP, slots, tiles_of


@dataclass(frozen=True, kw_only=True)
class WinogradTile:
    """A register tile is `rows` x `columns` tiles of 2x2 pixels x `vectors` vectors of output
    channels, at one of the 16 positions.

    blocks: register tiles of a task, which read the same filters; bands: parts of the image that
    are transformed one after the other, so that what is transformed stays in the cache;
    pixels_outer: consecutive tasks share the pixels rather than the filters.
    """

    rows: int
    columns: int
    vectors: int
    blocks: int
    bands: int
    pixels_outer: bool


def fits(
    source: TensorLayout, out: TensorLayout, padding: tuple[int, int], tile: WinogradTile
) -> bool:
    """Whether all that the transform reads, whole vectors of tiles, lies in the source's planes."""
    frame, (down, across) = source.frame, tiles_of(out)
    if tile.rows > down or tile.columns > across:
        return False
    last_row = STEP * (down - 1) - padding[0] + READ - 1
    last_column = STEP * (across - tile.columns) - padding[1] + 3 * slots(tile.columns)
    first = frame.first - padding[0] * frame.pitch - padding[1]
    return first >= 0 and frame.first + last_row * frame.pitch + last_column < frame.plane
