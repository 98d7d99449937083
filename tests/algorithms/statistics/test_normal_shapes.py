"""Shortcuts without weights, as networks for CIFAR have them, followed with normal variables."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import subpc
from subpc.algorithms.dfmpc.config import DfmpcConfig
from subpc.algorithms.udfc.config import UdfcConfig
from subpc.errors import UnsupportedModelError

Shortcut = Callable[[torch.Tensor], torch.Tensor]
SHORTCUTS: dict[str, Shortcut] = {
    "padding": lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4), "constant", 0),
    "dots": lambda x: F.pad(x[..., ::2, ::2], (0, 0, 0, 0, 8, 0)),
    "zeros joined": lambda x: torch.cat(
        [x[:, :, ::2, ::2], torch.zeros_like(x[:, :, ::2, ::2])], 1
    ),
    "times zero": lambda x: (lambda y: torch.cat((y, y.mul(0)), 1))(F.avg_pool2d(x, 1, 2)),
    "channels chosen": lambda x: torch.cat(
        [x[:, 4:, ::2, ::2], x[:, :4, 1::2, ::2], x[:, :, ::2, ::2]], 1
    ),
}


class Residual(nn.Module):
    """A stem, a block whose shortcut doubles the channels and halves the plane, a classifier."""

    def __init__(self, shortcut: Shortcut) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv1, self.bn1 = nn.Conv2d(8, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16)
        self.conv2, self.bn2 = nn.Conv2d(16, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.fc, self.shortcut = nn.Linear(16, 5), shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm(self.stem(x)))
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        y += self.shortcut(x)
        y = F.avg_pool2d(F.relu(y), y.size()[3])
        return self.fc(y.view(y.size(0), -1))


def residual(shortcut: Shortcut) -> nn.Module:
    torch.manual_seed(0)
    net = Residual(shortcut).train()
    for norm in (net.norm, net.bn1, net.bn2):
        norm.momentum = 1.0
    net(torch.randn(16, 3, 16, 16))
    return net.eval()


@pytest.mark.parametrize(
    "config",
    [
        DfmpcConfig(low_bits=6, high_bits=6, inputs="normal"),
        UdfcConfig(ratio=0.2, bits=8, inputs="normal"),
    ],
)
@pytest.mark.parametrize("name", SHORTCUTS)
def test_shortcuts_without_weights(name: str, config: DfmpcConfig | UdfcConfig) -> None:
    net = residual(SHORTCUTS[name])
    x = torch.randn(16, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    smaller, _ = subpc.compress(net, config, input_shape=(1, 3, 16, 16))
    with torch.no_grad():
        error = float((smaller(x) - net(x)).norm() / net(x).norm())
    assert error < (0.25 if isinstance(config, DfmpcConfig) else 0.5)


def test_steps_that_are_not_known_are_refused_with_the_way_out() -> None:
    net = residual(lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4), "constant", 1.0))
    with pytest.raises(UnsupportedModelError, match="--inputs random"):
        subpc.compress(net, DfmpcConfig(inputs="normal"), input_shape=(1, 3, 16, 16))
