"""Which combinations of a test's parameters stand for all of them."""

from collections.abc import Hashable, Mapping, Sequence
from itertools import combinations


def representatives(combined: Sequence[Mapping[str, Hashable]]) -> set[int]:
    """Places of few combinations, parameter -> value, in which any two values meet that meet in one
    of them: again and again the first one that has most pairs that are still missing."""
    pairs = [set(combinations(values.items(), min(2, len(values)))) for values in combined]
    missing, chosen = set().union(*pairs), set[int]()
    while missing:
        best = max(range(len(pairs)), key=lambda place: len(pairs[place] & missing))
        chosen.add(best)
        missing -= pairs[best]
    return chosen
