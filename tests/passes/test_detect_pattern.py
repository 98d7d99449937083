"""Finding 1xN patterns in weights that nobody described."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subpc.passes.detect_pattern import GROUP_SIZES, UNIFORM_SLACK, detect_pattern

FILTERS, CHANNELS = 64, 40


def weights(kept: np.ndarray, n: int, kernel: int = 3) -> np.ndarray:
    """Weights without a zero where group g keeps input channel i, zero elsewhere; kept (groups,
    channels)."""
    values = (
        np.random.default_rng(0)
        .uniform(0.5, 1.0, (kept.shape[0] * n, kept.shape[1], kernel, kernel))
        .astype("float32")
    )
    values *= kept.repeat(n, 0)[:, :, None, None]
    return values


def choose(groups: int, counts: list[int]) -> np.ndarray:
    """Random channels, counts[g] of them in group g."""
    rng = np.random.default_rng(1)
    kept = np.zeros((groups, CHANNELS), bool)
    for row, count in zip(kept, counts, strict=True):
        row[rng.permutation(CHANNELS)[:count]] = True
    return kept


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("n", GROUP_SIZES)
def test_uniform_patterns_of_every_size(n: int, kernel: int) -> None:
    kept = choose(FILTERS // n, [10] * (FILTERS // n))
    pattern = detect_pattern(weights(kept, n, kernel))
    assert pattern is not None
    assert (pattern.n, pattern.uniform, pattern.sparsity) == (n, True, 0.75)
    assert pattern.label == f"1x{n} uniform"
    np.testing.assert_array_equal(pattern.kept, kept)


@pytest.mark.parametrize("n", GROUP_SIZES)
def test_groups_of_unequal_size_are_layer_wise(n: int) -> None:
    kept = choose(FILTERS // n, [5 + 7 * (g % 3) for g in range(FILTERS // n)])
    pattern = detect_pattern(weights(kept, n))
    assert pattern is not None
    assert (pattern.n, pattern.uniform, pattern.label) == (n, False, f"1x{n} layer-wise")
    np.testing.assert_array_equal(pattern.kept, kept)


def test_nearly_equal_groups_are_filled_up() -> None:
    """One channel less costs less than tasks of unequal length, as long as the zeros in between are
    few."""
    channels = int(1 / UNIFORM_SLACK)
    kept = np.zeros((2, channels), bool)
    kept[0, :20] = kept[1, 5:24] = True
    pattern = detect_pattern(weights(kept, 16))
    assert pattern is not None
    assert pattern.uniform
    assert pattern.kept.sum(axis=1).tolist() == [20, 20]
    assert (pattern.kept | ~kept).all()  # nothing that is not zero is lost


def test_the_largest_size_that_loses_nothing_wins() -> None:
    """A 1x32 pattern is a 1x16, 1x8 and 1x4 pattern as well."""
    kept = choose(FILTERS // 32, [10] * 2)
    assert detect_pattern(weights(kept, 32)).n == 32  # type: ignore[union-attr]
    narrower = weights(kept, 32)
    narrower[:16, np.flatnonzero(kept[0])[:5]] = (
        0  # half a group loses channels that the other half keeps
    )
    assert detect_pattern(narrower).n == 16  # type: ignore[union-attr]


def test_a_size_has_to_divide_the_filters() -> None:
    kept = choose(3, [10] * 3)
    assert detect_pattern(weights(kept, 8)).n == 8  # type: ignore[union-attr]  # 24 filters: 32 and 16 are not even tried


@pytest.mark.parametrize(
    "values",
    [
        np.ones((64, 16, 3, 3), "float32"),
        np.ones((6, 16, 3, 3), "float32")
        * (np.arange(16) % 2)[None, :, None, None],  # six filters: no size fits
        np.where(np.random.default_rng(0).random((64, 16, 3, 3)) < 0.5, 0, 1).astype(
            "float32"
        ),  # single weights
        np.ones((64, 16, 1, 1), "float32")
        * ((np.arange(64)[:, None] + np.arange(16)) % 2)[:, :, None, None],  # every other filter
    ],
    ids=["no zeros", "six filters", "scattered zeros", "chequered"],
)
def test_no_pattern(values: np.ndarray) -> None:
    assert detect_pattern(values) is None


def test_a_layer_of_zeros() -> None:
    pattern = detect_pattern(np.zeros((32, 8, 3, 3), "float32"))
    assert pattern is not None
    assert (pattern.n, pattern.uniform, pattern.sparsity) == (32, True, 1.0)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    n=st.sampled_from(GROUP_SIZES),
    groups=st.integers(1, 3),
    seed=st.integers(0, 1000),
    sparsity=st.floats(0, 1),
)
def test_no_weight_is_ever_lost(n: int, groups: int, seed: int, sparsity: float) -> None:
    """Whatever the pattern: where it says "not kept" there are only zeros."""
    alive = np.random.default_rng(seed).random((groups, 12)) >= sparsity
    values = weights(alive, n, 1)
    pattern = detect_pattern(values)
    if pattern is None:
        assert alive.all()
        return
    used = pattern.kept.repeat(pattern.n, 0)
    assert not values[~used].any()
    assert not pattern.uniform or len(set(pattern.kept.sum(axis=1).tolist())) == 1
