"""Normalisations keep their precision where the mean is large beside the deviation; PyTorch itself
loses four digits there."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from subpc.compiler.compile_model import compile

PRECISION = 1e-6  # of the largest result
NORMS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "group": lambda x: F.group_norm(x, 2),
    "group affine": lambda x: F.group_norm(x, 4, torch.arange(1, 9).to(x), torch.ones(8).to(x)),
    "group of rows": lambda x: F.group_norm(x.flatten(2), 2),
    "instance": lambda x: F.instance_norm(x),
    "instance affine": lambda x: F.instance_norm(
        x, weight=torch.arange(1, 9).to(x), bias=torch.ones(8).to(x)
    ),
    "layer": lambda x: F.layer_norm(x, x.shape[1:]),
    "layer of rows": lambda x: F.layer_norm(x, x.shape[3:]),
    "layer of channels": lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (8,)).permute(0, 3, 1, 2),
    "batch in training": lambda x: F.batch_norm(x, None, None, training=True),
    "variance": lambda x: x.var((2, 3)),
    "deviation": lambda x: x.std(1),
}


class Calls(nn.Module):
    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [self.function(x), x.amax((1, 2, 3))]


@pytest.mark.parametrize("name", NORMS)
def test_as_precise_as_pytorch(name: str) -> None:
    function, generator = NORMS[name], torch.Generator().manual_seed(0)
    noise = torch.randn(2, 8, 13, 17, generator=generator)
    compiled = compile(Calls(function).eval(), noise)
    for mean in (0, 100, 1000, 10_000):
        x = noise + mean
        exact = function(x.double())
        assert float((compiled(x)[0] - exact).abs().max()) <= PRECISION * float(
            exact.abs().max()
        ), mean


@pytest.mark.parametrize("value", [0.1, 1e4])
def test_equal_values_have_no_deviation(value: float) -> None:
    x = torch.full((2, 8, 13, 17), value)
    got = compile(
        Calls(lambda x: torch.cat([F.group_norm(x, 2).mean((2, 3)), x.std((2, 3))])).eval(), x
    )(x)[0]
    assert float(got.abs().max()) < 1e-3


def test_nan_stays_nan() -> None:
    x = torch.randn(2, 8, 5, 6, generator=torch.Generator().manual_seed(0))
    x[1, 2, 3, 4] = torch.nan
    function = lambda x: torch.cat([F.group_norm(x, 2).mean((2, 3)), x.var((2, 3))])  # noqa: E731
    assert torch.equal(compile(Calls(function).eval(), x)(x)[0].isnan(), function(x).isnan())
