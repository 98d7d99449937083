"""schedules/fill_halo.py: everything that a filter may read besides the pixels, and no pixel."""

import numpy as np
import pytest

from subpc.schedules.fill_halo import FillHalo
from subpc.schedules.isa import AVX512
from subpc.schedules.layout import TensorLayout, halo_frame
from tests.schedules.harness import run_everywhere


@pytest.mark.pairs
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (7, 7), (56, 56)])
@pytest.mark.parametrize("halo", [1, 2, 3])
def test_the_halo_becomes_the_zero_point(size: tuple[int, int], halo: int, whole: bool) -> None:
    frame = halo_frame(*size, halo, "uint8")
    layout = TensorLayout(batch=2, channels=3, frame=frame, dtype="uint8")
    before = np.random.default_rng(0).integers(0, 100, layout.elements).astype("uint8")

    after = run_everywhere(FillHalo(layout=layout, zero_point=131, whole=whole), [before], AVX512)

    planes, old = after.reshape(6, frame.plane), before.reshape(6, frame.plane)
    read = np.zeros(frame.plane, bool)
    pixels = np.zeros(frame.plane, bool)
    for row in range(-halo, frame.height + halo):
        start = frame.first + row * frame.pitch
        read[start - halo : start + frame.width + halo] = True
        if 0 <= row < frame.height:
            pixels[start : start + frame.width] = not whole
    np.testing.assert_array_equal(planes[:, pixels], old[:, pixels])
    assert (planes[:, read & ~pixels] == 131).all()
    np.testing.assert_array_equal(planes[:, ~read], old[:, ~read])
