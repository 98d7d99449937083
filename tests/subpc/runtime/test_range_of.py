"""Outputs of one number, and constants, are compared by their size."""

import numpy as np
import pytest

from subpc.bench.bench import difference
from subpc.bench.report import AGREEMENT
from subpc.runtime.deviation import range_of
from subpc.tuning.device import TOLERANCE
from subpc.tuning.measure_worker import deviation


def test_the_range_and_for_constants_a_share_of_the_size() -> None:
    assert range_of([-1.0, 3.0]) == 4
    assert range_of([100.0, 102.0]) == 2
    assert range_of([-7.0]) == pytest.approx(7e-2)
    assert 0 < range_of([0.0, 0.0]) < 1e-9
    assert range_of([]) > 0


@pytest.mark.parametrize("shape", [(1,), (1, 1), (1, 5)])
def test_rounding_of_one_number_is_no_difference(shape: tuple[int, ...]) -> None:
    ours = np.full(shape, 0.7, np.float32)
    theirs = ours * np.float32(1 + 2e-6)
    assert difference({"y": ours}, {"y": theirs}) < AGREEMENT
    assert deviation(ours, theirs) < TOLERANCE


@pytest.mark.parametrize("shape", [(1,), (1, 5)])
def test_another_number_is_a_difference(shape: tuple[int, ...]) -> None:
    ours = np.full(shape, 0.7, np.float32)
    assert difference({"y": ours}, {"y": ours * 1.01}) > AGREEMENT
    assert deviation(ours, ours * np.float32(1.01)) > TOLERANCE
