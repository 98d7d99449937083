"""When a difference between two things that ran in turns is certain: a distribution-free interval
for the median of paired ratios."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

# After each batch of pairs the question is asked again; a small error each time keeps the error of
# all times small.
CONFIDENCE = 0.99
# A schedule that gains less than this is not worth a change; one that certainly gains less is given
# up.
MIN_GAIN = 0.004
MIN_PAIRS = 8


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """ratio: median of b / a; low, high: its interval; faster, slower: certainly so (slower: or
    certainly not worth a change)."""

    ratio: float
    low: float
    high: float
    faster: bool
    slower: bool

    @property
    def certain(self) -> bool:
        """Whether more pairs would not change the decision."""
        return self.faster or self.slower


def judge(ratios: Sequence[float]) -> Judgement:
    """Whether b is faster than a, from the ratios b / a of pairs that ran one after the other."""
    ordered = sorted(ratios)
    low, high = median_interval(ordered)
    middle = len(ordered) // 2
    ratio = (
        ordered[middle] if len(ordered) % 2 else math.sqrt(ordered[middle - 1] * ordered[middle])
    )
    enough = len(ordered) >= MIN_PAIRS
    faster = enough and high < 1.0 and ratio <= 1.0 - MIN_GAIN
    return Judgement(
        ratio=ratio, low=low, high=high, faster=faster, slower=enough and low > 1.0 - MIN_GAIN
    )


def median_interval(
    ordered: Sequence[float], confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """The median's confidence interval from sorted values, by the sign test: which order statistics
    it lies between."""
    count, tail, rank = len(ordered), 0.0, 0
    while rank < count // 2:
        tail += math.comb(count, rank) / 2**count  # whole numbers: a power of 2.0 would overflow
        if 2.0 * tail > 1.0 - confidence:
            break
        rank += 1
    return (0.0, math.inf) if rank == 0 else (ordered[rank - 1], ordered[count - rank])
