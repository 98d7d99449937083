"""How far two results are apart."""

from typing import Any

import numpy as np

from subpc.errors import ConfigError

# Rounding leaves some 1e-6 of a number's size. Where an output hardly changes beside its size (one
# number, a constant), its range says nothing: a share of the size takes its place, with which
# rounding stays below a tolerance of 1e-3.
_LEAST = 1e-2
_SMALLEST = 1e-12


def range_of(values: Any) -> float:
    """The range of an array of finite numbers, of any shape: at least a hundredth of its largest
    number's size; positive, also for no numbers."""
    values = np.asarray(values, "float64")
    if not values.size:
        return _SMALLEST
    return max(float(np.ptp(values)), _LEAST * float(np.abs(values).max()), _SMALLEST)


def share_of_range(got: Any, expected: Any) -> float:
    """The largest deviation of `got` from `expected`, arrays or tensors of one shape, as a share of
    the range of `expected`.

    Infinite where one of two values is not finite and the other is not the same. ConfigError for
    two shapes.
    """
    got, expected = np.asarray(got, "float64"), np.asarray(expected, "float64")
    if got.shape != expected.shape:
        raise ConfigError(f"two results of different shapes: {got.shape} and {expected.shape}")
    finite = np.isfinite(expected)
    if (
        not np.array_equal(got[~finite], expected[~finite], equal_nan=True)
        or not np.isfinite(got[finite]).all()
    ):
        return float("inf")
    if not finite.any():
        return 0.0
    got, expected = got[finite], expected[finite]
    return float(np.abs(got - expected).max() / range_of(expected))
