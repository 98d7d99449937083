"""Folding per-channel arithmetic into the layer before it."""

import pytest
import torch
from torch import nn

from subpc.compiler.compile_model import compile


class Scaled(nn.Module):
    """conv, then one arithmetic step with a per-channel constant."""

    def __init__(self, step: str) -> None:
        super().__init__()
        self.conv, self.step = nn.Conv2d(4, 8, 3, padding=1), step
        self.register_buffer("value", torch.linspace(0.5, 2.0, 8).reshape(1, 8, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        steps = {
            "add": y + self.value,
            "sub": y - self.value,
            "rsub": self.value - y,
            "mul": y * self.value,
            "div": y / self.value,
        }
        return steps[self.step]


@pytest.mark.parametrize("step", ["add", "sub", "rsub", "mul", "div"])
def test_per_channel_arithmetic_equals_pytorch(step: str) -> None:
    torch.manual_seed(0)
    net, x = Scaled(step).eval(), torch.randn(1, 4, 9, 9)
    with torch.no_grad():
        expected = net(x)
    assert torch.allclose(compile(net, x)(x), expected, atol=1e-5)


def test_nan_weights_are_reported_with_their_layer() -> None:
    conv = nn.Conv2d(4, 8, 1)
    conv.weight.data[0, 0] = float("nan")
    warnings = compile(nn.Sequential(conv), torch.randn(1, 4, 5, 5)).report.metadata.warnings
    assert any("layer 0 " in warning and "NaN" in warning for warning in warnings)
