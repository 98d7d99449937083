"""Batch norm and ReLU in front of a convolution."""

import pytest
import torch
from torch import nn

from subpc.compiler.compile_model import compile


class Preactivated(nn.Module):
    """DenseNet's order: norm, ReLU, convolution."""

    def __init__(self, gamma: list[float], kernel: int = 1) -> None:
        super().__init__()
        channels = len(gamma)
        self.norm, self.conv = (
            nn.BatchNorm2d(channels),
            nn.Conv2d(channels, 16, kernel, padding=kernel // 2),
        )
        self.norm.weight.data = torch.tensor(gamma)
        nn.init.normal_(self.norm.bias)
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(self.norm(x).relu())


def families(net: nn.Module, x: torch.Tensor) -> set[str]:
    return {step.family for step in compile(net, x).functions[0].steps if step.flops}


@pytest.mark.parametrize(
    "gamma",
    [[0.5, 1.0, 2.0, 3.0], [0.5, -1.0, 2.0, -0.1], [1.0, 0.0, -1.0, 0.0], [1e-6, 1e3, 1.0, -1e-6]],
    ids=str,
)
@pytest.mark.parametrize("kernel", [1, 3])
def test_any_sign_and_size_of_gamma_equals_pytorch(gamma: list[float], kernel: int) -> None:
    torch.manual_seed(0)
    net, x = Preactivated(gamma, kernel).eval(), 3 * torch.randn(2, len(gamma), 9, 9)
    with torch.no_grad():
        expected = net(x)
    assert (compile(net, x)(x) - expected).abs().max() < 1e-5 * expected.abs().max()


def test_no_pass_over_memory_is_left() -> None:
    net, x = Preactivated([0.5, -1.0, 2.0, 3.0]).eval(), torch.randn(1, 4, 9, 9)
    assert families(net, x) == {"dense_conv_f32"}


def test_padding_is_not_clamped() -> None:
    """Where the filter sees padding, relu(shift) would take the place of zero."""
    net, x = Preactivated([0.5, 1.0, 2.0, 3.0], kernel=3).eval(), torch.randn(1, 4, 9, 9)
    assert "elementwise" in families(net, x)
