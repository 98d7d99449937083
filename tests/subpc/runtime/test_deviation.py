"""One measure of how far two results are apart."""

import numpy as np
import pytest

from subpc.errors import ConfigError
from subpc.runtime.deviation import share_of_range

NAN, INF = float("nan"), float("inf")


def test_it_is_the_largest_deviation_as_a_share_of_the_range() -> None:
    assert share_of_range([0.0, 1.0, 4.5], [0.0, 1.0, 4.0]) == pytest.approx(0.125)
    assert share_of_range([1.0, 1.0], [1.0, 1.0]) == 0
    assert share_of_range([], []) == 0
    with pytest.raises(ConfigError, match="different shapes"):
        share_of_range([1.0], [1.0, 2.0])


def test_small_types_are_subtracted_in_large_ones() -> None:
    assert share_of_range(
        np.array([0, 255], np.uint8), np.array([1, 255], np.uint8)
    ) == pytest.approx(1 / 254)


@pytest.mark.parametrize(
    "got", [[0.0, 1.0, NAN], [NAN, 1.0, INF], [0.0, 1.0, -INF], [0.0, 1.0, 9.0]]
)
def test_what_is_not_finite_has_to_be_the_same(got: list[float]) -> None:
    assert share_of_range(got, [0.0, 1.0, INF]) == INF


def test_where_it_is_the_same_the_rest_counts() -> None:
    assert share_of_range([0.0, 1.5, INF, NAN], [0.0, 1.0, INF, NAN]) == pytest.approx(0.5)
    assert share_of_range([NAN], [NAN]) == 0
