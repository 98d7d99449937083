"""Tests marked `pairs`: combinations in which any two values meet are quick, the rest is slow."""

from itertools import combinations, product

import pytest

from tests.pairs import representatives

AXES = {"a": 2, "b": 3, "c": 7, "d": 3}


def test_any_two_values_meet_in_few_combinations() -> None:
    every = [dict(zip(AXES, places, strict=True)) for places in product(*map(range, AXES.values()))]
    quick = [every[place] for place in representatives(every)]
    met = {pair for values in quick for pair in combinations(values.items(), 2)}
    assert met == {pair for values in every for pair in combinations(values.items(), 2)}
    assert len(quick) < len(every) / 4


def test_of_two_parameters_and_of_one_none_is_left_out() -> None:
    two = [{"a": a, "b": b} for a, b in product(range(3), range(4))]
    assert len(representatives(two)) == 12
    assert len(representatives([{"a": a} for a in range(5)])) == 5


def test_one_combination_alone_is_quick() -> None:
    assert representatives([{"a": 4, "b": 1, "c": 2}]) == {0}


@pytest.mark.pairs
@pytest.mark.parametrize("c", range(3))
@pytest.mark.parametrize("b", ["x", "y", "z"])
@pytest.mark.parametrize("a", [None, (1, 2)])
def test_of_a_grid_of_eighteen_nine_are_quick(
    a: object, b: str, c: int, request: pytest.FixtureRequest
) -> None:
    grid = [item for item in request.session.items if "a_grid_of_eighteen" in item.name]
    assert sum(item.get_closest_marker("slow") is None for item in grid) <= 9
