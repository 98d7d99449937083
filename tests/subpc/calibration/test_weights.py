"""Codes of weights: symmetric, one scale an output channel, and what they change by in the mean."""

import pytest
import torch
from torch.nn import functional as F

from subpc.calibration.weights import bias_correction, int8_codes


def values(codes: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    return codes * scales.reshape(-1, *(1,) * (codes.dim() - 1))


def weights(*shape: int, power: float = 1.0) -> torch.Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return x.sign() * x.abs() ** power


def test_channels_have_scales_of_their_own() -> None:
    weight = weights(4, 8, 3, 3) * torch.tensor([1e-3, 1.0, 50.0, 0.2]).reshape(-1, 1, 1, 1)
    codes, scales = int8_codes(weight)
    assert codes.dtype == torch.int8
    assert codes.abs().amax((1, 2, 3)).tolist() == [127] * 4
    off = (values(codes, scales) - weight).abs().amax((1, 2, 3))
    assert (off <= scales * 12).all()
    assert off.median() < 2 * scales.median()


def test_scales_are_those_of_the_least_squared_error() -> None:
    weight = weights(8, 4000, power=2.5)
    codes, scales = int8_codes(weight)
    plain = weight.abs().amax(1, keepdim=True) / 127
    rounded = (weight / plain).round() * plain
    errors = [(found - weight).square().sum(1) for found in (values(codes, scales), rounded)]
    assert (errors[0] <= errors[1] * (1 + 1e-6)).all()
    assert errors[0].sum() < 0.99 * errors[1].sum()


def test_zeros_stay_zeros_also_where_all_are() -> None:
    weight = weights(3, 16)
    weight[:, ::2] = 0
    weight[1] = 0
    codes, scales = int8_codes(weight)
    assert (codes[weight == 0] == 0).all()
    assert (scales > 0).all()
    assert torch.isfinite(1 / scales).all()


def test_importance_decides_which_weights_are_met() -> None:
    """One large weight that hardly counts, beside many small ones that do."""
    weight = torch.cat([torch.full((1, 1), 1.2), weights(1, 500) * 0.1], 1)
    counts = torch.ones(501)
    counts[0] = 1e-6
    (even, even_scale), (uneven, uneven_scale) = int8_codes(weight), int8_codes(weight, counts)
    off = [values(c, s) - weight for c, s in ((even, even_scale), (uneven, uneven_scale))]
    assert off[1][:, 1:].square().sum() < off[0][:, 1:].square().sum()


@pytest.mark.parametrize("groups", [1, 4])
def test_correction_is_what_the_mean_result_changes_by(groups: int) -> None:
    weight = weights(8, 8 // groups, 3, 3)
    coded = values(*int8_codes(weight))
    x = torch.rand(20, 8, 12, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = x * torch.arange(8.0).reshape(1, -1, 1, 1)
    lost = F.conv2d(x, weight.double() - coded.double(), groups=groups).mean((0, 2, 3))
    found = bias_correction(weight, coded, x.mean((0, 2, 3)), groups)
    assert torch.allclose(found, lost, atol=0.2 * float(lost.abs().max()))
    assert (found.sign() == lost.sign())[lost.abs() > 0.3 * lost.abs().max()].all()
