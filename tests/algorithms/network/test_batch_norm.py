"""Moments and statistics against sampling."""

import math

import pytest
import torch
from torch import nn

from subpc.algorithms.network.batch_norm import gain_shift, recalibrate, relu_moments


@pytest.mark.parametrize("limit", [math.inf, 6.0])
def test_moments_behind_a_relu_are_those_of_samples(limit: float) -> None:
    mean, variance = (
        torch.tensor([-2.0, 0.0, 1.0, 5.0]).double(),
        torch.tensor([1.0, 4.0, 0.25, 9.0]).double(),
    )
    samples = (
        torch.randn(400_000, 4, generator=torch.Generator().manual_seed(0)).double()
        * variance.sqrt()
        + mean
    )
    clipped = samples.clamp(0, limit)
    first, second = relu_moments(mean, variance, limit)
    torch.testing.assert_close(first, clipped.mean(0), rtol=0.02, atol=0.005)
    torch.testing.assert_close(second, clipped.var(0), rtol=0.02, atol=0.005)


def test_gain_and_shift_are_the_layer_without_bias() -> None:
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4).eval()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.running_mean)
    x = torch.randn(2, 3, 6, 6)
    gain, shift = gain_shift(conv, norm)
    z = nn.functional.conv2d(x, conv.weight).double()
    torch.testing.assert_close(
        (gain.view(-1, 1, 1) * z + shift.view(-1, 1, 1)).float(),
        norm(conv(x)),
        rtol=1e-5,
        atol=1e-5,
    )


def test_statistics_of_another_weight_are_those_of_samples() -> None:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(20_000, 8, 3, 3, generator=generator).clamp(min=0)
    old = torch.randn(4, 8, 3, 3, generator=generator)
    new = old.sign() * 0.8
    norm = nn.BatchNorm2d(4).eval()
    before, after = (nn.functional.conv2d(inputs, w)[:, :, 0, 0] for w in (old, new))
    norm.running_mean.copy_(before.mean(0))
    norm.running_var.copy_(before.var(0))
    recalibrate(norm, old, new, (inputs.mean((0, 2, 3)).double(), inputs.var((0, 2, 3)).double()))
    torch.testing.assert_close(norm.running_mean, after.mean(0), rtol=0.05, atol=0.05)
    torch.testing.assert_close(norm.running_var, after.var(0), rtol=0.05, atol=0.05)


def test_the_same_weight_keeps_the_statistics() -> None:
    norm, w = nn.BatchNorm2d(4).eval(), torch.ones(4, 8, 1, 1)
    norm.running_mean.copy_(torch.arange(4.0))
    recalibrate(norm, w, w, None)
    torch.testing.assert_close(norm.running_mean, torch.arange(4.0))
    torch.testing.assert_close(norm.running_var, torch.ones(4))
