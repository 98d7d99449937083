"""The guided search, its warm start, and the statistics that decide: without a compiler."""

import random

import pytest

from subpc.schedules.isa import AVX512
from subpc.schedules.search_space import search_space
from subpc.schedules.workload import ConvWorkload
from subpc.tuning.judge import MIN_PAIRS, judge, median_interval
from subpc.tuning.propose import Search, nearest, variations

WORKLOAD = ConvWorkload(
    batch=1,
    source=(64, 14, 14),
    out=(64, 14, 14),
    kernel=(1, 1),
    stride=(1, 1),
    padding=(0, 0),
    dilation=(1, 1),
    groups=1,
    n=16,
    kept=64,
    uniform=True,
    residual=False,
    clamped=False,
    activation="relu",
)
SPACE = search_space(WORKLOAD, AVX512)


@pytest.mark.parametrize("fast", ["flat", "direct"])
def test_later_proposals_are_of_the_kind_that_was_found_to_be_fast(fast: str) -> None:
    """A search that does not learn has one family in at most half of its proposals, and would fail
    for that."""
    late: list[bool] = []
    for seed in range(2):
        search, found = Search(SPACE, seed=seed), []
        for _ in range(30):
            choice = search.propose()
            assert choice is not None
            found.append(choice["family"] == fast)
            search.tell(choice, 1.0 if found[-1] else 10.0)
        late += found[-15:]
    assert sum(late) / len(late) > 0.6


def test_no_schedule_is_proposed_twice_and_the_end_is_noticed() -> None:
    few = SPACE[:12]
    search, seen = Search(few, seed=0), []
    search.tell(few[0], 1.0)
    while (choice := search.propose()) is not None:
        seen.append(choice)
        search.tell(choice, None if len(seen) % 3 == 0 else 1.0)
    assert sorted(map(str, seen)) == sorted(map(str, few[1:]))


def test_what_could_not_be_measured_is_proposed_again() -> None:
    search = Search(SPACE, seed=0)
    first = search.propose()
    assert first is not None
    search.give_back(first)
    assert search.propose() == first


def test_enqueued_schedules_come_first() -> None:
    search = Search(SPACE, seed=0)
    search.enqueue([SPACE[5], {"family": "no such"}, SPACE[3]])
    assert [search.propose(), search.propose()] == [SPACE[5], SPACE[3]]


def test_variations_change_the_tile_or_one_field() -> None:
    default = SPACE[0]
    found = variations(default, SPACE)
    assert found
    assert all(choice in SPACE for choice in found)
    for choice in found:
        changed = {field for field in default if choice.get(field) != default[field]}
        assert (
            len(changed) == 1
            or choice["family"] != default["family"]
            or changed & {"rows", "vectors", "tail"}
        )
    assert {str(c["family"]) for c in found} == {str(c["family"]) for c in SPACE}


def test_the_nearest_workload_lends_its_schedule() -> None:
    from dataclasses import replace

    like, unlike = (
        replace(WORKLOAD, source=(64, 7, 7), out=(64, 7, 7)),
        replace(WORKLOAD, kernel=(3, 3)),
    )
    near, far = SPACE[10], SPACE[-1]
    assert nearest(WORKLOAD, [(unlike, far), (like, near)], SPACE) == near
    assert nearest(WORKLOAD, [(like, near | {"blocks": 1000})], SPACE) in SPACE
    assert nearest(WORKLOAD, [], SPACE) is None


def noisy(ratio: float, count: int, seed: int = 0) -> list[float]:
    rng = random.Random(seed)
    return [
        ratio * rng.lognormvariate(0, 0.05) * (3.0 if rng.random() < 0.05 else 1.0)
        for _ in range(count)
    ]


def test_a_clear_difference_is_certain_in_spite_of_outliers() -> None:
    assert judge(noisy(0.9, 60)).faster
    assert judge(noisy(1.1, 60)).slower
    assert not judge(noisy(0.9, MIN_PAIRS - 1)).certain


def test_equal_schedules_are_hardly_ever_called_faster() -> None:
    assert sum(judge(noisy(1.0, 40, seed)).faster for seed in range(300)) <= 6


@pytest.mark.parametrize("count", [3, 10, 41, 3000])
def test_the_interval_holds_the_median(count: int) -> None:
    ordered = sorted(noisy(1.0, count))
    low, high = median_interval(ordered)
    assert low <= ordered[count // 2] <= high


def test_more_pairs_narrow_the_interval() -> None:
    short, long = median_interval(sorted(noisy(1.0, 20))), median_interval(sorted(noisy(1.0, 200)))
    assert long[1] - long[0] < short[1] - short[0]
