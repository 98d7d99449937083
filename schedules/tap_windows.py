"""How the taps of one filter row are dealt out over the instruction that adds four products of
neighbouring bytes.

A register of bytes, loaded from some place on, has in its 32-bit lane d the four pixels 4d .. 4d +
3. For a stride of 1 that lane can be the output pixel 4d + k for k from 0 to 3, of 2 there are two,
2d + k, of 4 one: each k has sums of its own, and the weights are moved instead of the pixels. A
window is one such use: where the register begins, which k, and the taps that its bytes meet. Three
neighbouring taps need two loads and four windows for four times as many pixels as there are lanes:
no shuffle, and one instruction a pixel lane. Other strides take pixel by pixel, tap by tap.
"""

from dataclasses import dataclass

from subpc.schedules.dot import QUAD

NO_TAP = -1


@dataclass(frozen=True, kw_only=True)
class Window:
    """start: the first byte of the register, counted from the first tap of the tile's first pixel.
    k: which of the sums. taps: of each of the four bytes, NO_TAP: weight 0."""

    start: int
    k: int
    taps: tuple[int, ...]


def sums_of(stride: int) -> int:
    """How many output pixels of one lane there are."""
    return QUAD // stride if QUAD % stride == 0 else 1


def windows(taps: int, stride: int, dilation: int) -> tuple[Window, ...]:
    """As few as possible, from as few places as possible."""
    if QUAD % stride:
        alone = (NO_TAP,) * (QUAD - 1)
        return tuple(Window(start=t * dilation, k=0, taps=(t, *alone)) for t in range(taps))
    found = []
    for k in range(sums_of(stride)):
        reached = {k * stride + t * dilation: t for t in range(taps)}
        # The coarsest raster first: other sums begin their registers there as well.
        rasters = [_on_raster(sorted(reached), step) for step in (4, 2, 1)]
        for start in min(rasters, key=len):
            found.append(
                Window(
                    start=start,
                    k=k,
                    taps=tuple(reached.get(start + i, NO_TAP) for i in range(QUAD)),
                )
            )
    return tuple(found)


def _on_raster(places: list[int], step: int) -> list[int]:
    """Multiples of `step` from which four bytes each cover all places, none of them twice."""
    starts: list[int] = []
    for place in places:
        if not starts or place >= starts[-1] + QUAD:
            starts.append(place - place % step)
    return starts
