"""Every tap meets every pixel once, with few instructions."""

import pytest

from subpc.schedules.dot import QUAD
from subpc.schedules.tap_windows import NO_TAP, sums_of, windows


@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("taps", [1, 2, 3, 4, 5, 7, 11])
def test_every_tap_meets_its_byte_once(taps: int, stride: int, dilation: int) -> None:
    found = windows(taps, stride, dilation)
    for k in range(sums_of(stride)):
        met = {
            tap: window.start + byte
            for window in found
            if window.k == k
            for byte, tap in enumerate(window.taps)
            if tap != NO_TAP
        }
        assert met == {tap: k * stride + tap * dilation for tap in range(taps)}
        used = [tap for w in found if w.k == k for tap in w.taps if tap != NO_TAP]
        assert len(used) == taps
    assert all(window.start >= 0 and len(window.taps) == QUAD for window in found)


@pytest.mark.parametrize(
    ("taps", "stride", "count", "loads", "words"),
    [(3, 1, 4, 2, 2), (3, 2, 2, 2, 1), (5, 1, 8, 2, 8), (7, 1, 8, 4, 4)],
)
def test_usual_filters(taps: int, stride: int, count: int, loads: int, words: int) -> None:
    found = windows(taps, stride, 1)
    assert len(found) == count
    assert len({window.start for window in found}) == loads
    assert len({window.taps for window in found}) == words
