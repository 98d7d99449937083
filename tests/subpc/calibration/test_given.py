"""Arrays that a user calibrates with: taken as floats, or refused with what they are."""

import numpy as np
import pytest
import torch

from subpc.calibration.given import calibration_images
from subpc.errors import ConfigError
from subpc.images.prepare import Preparation

SHAPE = (1, 3, 4, 4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16, torch.uint8])
def test_a_tensor_of_any_real_numbers_is_taken(dtype: torch.dtype) -> None:
    values = torch.arange(96).reshape(2, 3, 4, 4).to(dtype)
    images = calibration_images(values, SHAPE, Preparation()).images
    assert images is not None
    assert torch.equal(images, values.float())


@pytest.mark.parametrize(
    "values",
    [torch.zeros(2, 3, 4, 4).to_sparse(), torch.zeros(2, 3, 4, 4, device="meta")],
    ids=["sparse", "meta"],
)
def test_a_tensor_without_plain_numbers_is_refused(values: torch.Tensor) -> None:
    with pytest.raises(ConfigError, match="calibration=Tensor holds no plain numbers"):
        calibration_images(values, SHAPE, Preparation())


@pytest.mark.filterwarnings("error")
def test_numbers_that_no_float32_holds_are_refused_as_the_images_they_are() -> None:
    with pytest.raises(ConfigError, match="the array holds values that are not finite in float32"):
        calibration_images(np.full((2, 3, 4, 4), -1e300), SHAPE, Preparation())
