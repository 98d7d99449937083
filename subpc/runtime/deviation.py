"""How far two results are apart."""

from typing import Any

import numpy as np

from subpc.errors import ConfigError

# Results of a smaller range are taken for constant.
_SMALLEST = 1e-12


def share_of_range(got: Any, expected: Any) -> float:
    """The largest deviation of `got` from `expected`, arrays or tensors of one shape, as a share of the range of `expected`.

    Infinite where one of two values is not finite and the other is not the same. ConfigError for two shapes.
    """
    got, expected = np.asarray(got, "float64"), np.asarray(expected, "float64")
    if got.shape != expected.shape:
        raise ConfigError(f"two results of different shapes: {got.shape} and {expected.shape}")
    finite = np.isfinite(expected)
    if not np.array_equal(got[~finite], expected[~finite], equal_nan=True) or not np.isfinite(got[finite]).all():
        return float("inf")
    if not finite.any():
        return 0.0
    got, expected = got[finite], expected[finite]
    return float(np.abs(got - expected).max() / max(float(np.ptp(expected)), _SMALLEST))
