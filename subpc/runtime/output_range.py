"""What deviations of an output are measured by."""

from typing import Any

import numpy as np

# Rounding leaves some 1e-6 of a number's size. Where an output hardly changes beside its size (one number, a constant), its range
# says nothing: a share of the size takes its place, with which rounding stays below a tolerance of 1e-3.
_LEAST = 1e-2
_SMALLEST = 1e-12


def range_of(values: Any) -> float:
    """The range of an array of finite numbers, at least a hundredth of its largest number's size; positive, also for no numbers."""
    values = np.asarray(values, "float64")
    if not values.size:
        return _SMALLEST
    return max(float(np.ptp(values)), _LEAST * float(np.abs(values).max()), _SMALLEST)
