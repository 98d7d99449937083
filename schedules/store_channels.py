"""Sums with output channels in the lanes on their way to planes of pixels: transposed, finished,
stored."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from subpc.schedules.epilogue import Epilogue
from subpc.schedules.vector import Register, put, segments, transpose

# Row and column of the first of some neighbouring pixels, the lane that it is in, and how many.
Piece = tuple[int, int, int, int]


def by_channel(pixels: list[Register], lanes: int) -> list[Register]:
    """Vectors of channels, one for each of up to `lanes` pixels, as vectors of pixels, one for each
    channel."""
    return transpose(pixels + pixels[:1] * (lanes - len(pixels)), lanes)


def pieces_of(start: int, count: int, columns: int, lanes: int) -> Iterator[Piece]:
    """The stores that cover pixels start .. start + count - 1 of rows of so many columns."""
    at = start
    while at < start + count:
        row, column = divmod(at, columns)
        run = min(columns - column, start + count - at)
        for offset, size in segments(run, lanes):
            yield row, column + offset, at - start + offset, size
        at += run


def store_channels(
    channels: list[Register],
    pieces: Iterable[Piece],
    place: Callable[[int, int, int], Any],
    epilogue: Epilogue,
    b: dict[str, Any],
) -> None:
    """Residual add, activation and store of each channel's pixels; `b` are the operands by name.

    place: where the pixel (number of the vector in `channels`, row, column) lies in the output.
    """
    pieces = list(pieces)
    for number, vector in enumerate(channels):
        # All pieces are computed before one is stored: they overlap, and y may be the residual.
        done = []
        for row, column, lane, size in pieces:
            at = place(number, row, column)
            value = epilogue.finish(vector.slice(lane, size), b, at, size)
            done.append((at, Register(size, value)))
        for at, result in done:
            put(b["y"], at, result.get(), result.lanes)
