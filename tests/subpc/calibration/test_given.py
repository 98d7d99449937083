"""Arrays that a user calibrates with: taken as floats, or refused with what they are."""

import numpy as np
import pytest
import torch

from subpc.calibration.given import calibration_inputs
from subpc.errors import ConfigError
from subpc.images.prepare import Preparation
from subpc.library.report import TensorInfo

INPUTS = [TensorInfo(name="x", shape=(1, 3, 4, 4))]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16, torch.uint8])
def test_a_tensor_of_any_real_numbers_is_taken(dtype: torch.dtype) -> None:
    values = torch.arange(96).reshape(2, 3, 4, 4).to(dtype)
    (images,) = calibration_inputs(values, INPUTS, Preparation()).arrays
    assert torch.equal(images, values.float())


@pytest.mark.parametrize(
    "values",
    [torch.zeros(2, 3, 4, 4).to_sparse(), torch.zeros(2, 3, 4, 4, device="meta")],
    ids=["sparse", "meta"],
)
def test_a_tensor_without_plain_numbers_is_refused(values: torch.Tensor) -> None:
    with pytest.raises(ConfigError, match="calibration=Tensor holds no plain numbers"):
        calibration_inputs(values, INPUTS, Preparation())


@pytest.mark.filterwarnings("error")
def test_numbers_that_no_float32_holds_are_refused_as_the_images_they_are() -> None:
    with pytest.raises(ConfigError, match="the array holds values that are not finite in float32"):
        calibration_inputs(np.full((2, 3, 4, 4), -1e300), INPUTS, Preparation())


def test_samples_that_no_memory_holds_are_refused() -> None:
    values = np.broadcast_to(np.float32(0), (1 << 40, 3, 4, 4))
    with pytest.raises(ConfigError, match="does not fit in memory; give fewer samples"):
        calibration_inputs(values, INPUTS, Preparation())
