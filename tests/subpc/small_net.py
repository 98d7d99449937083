"""A small network with everything that is fused: batch norm, a residual addition, activations."""

from pathlib import Path

import torch
from torch import nn

SHAPE = (1, 3, 16, 16)


class Block(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = (
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.conv2, self.bn2 = (
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(self.act(self.bn1(self.conv1(x)))))
        y += x
        return self.act(y)


class SmallNet(nn.Module):
    """A stem, a block, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block, self.fc = (
            nn.Conv2d(3, 32, 3, stride=2, padding=1),
            Block(32),
            nn.Linear(32, 5),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.block(torch.nn.functional.hardswish(self.stem(x))).mean((2, 3)))


def small_net(*, pruned: str = "") -> SmallNet:
    """Seeded, with batch norms that do something; half of the input channels of the layer `pruned`
    are zero."""
    torch.manual_seed(0)
    net = SmallNet().eval()
    for norm in (net.block.bn1, net.block.bn2):
        norm.running_mean = torch.randn(32) / 4
        norm.running_var = torch.rand(32) + 0.5
    if pruned:
        with torch.no_grad():
            net.get_submodule(pruned).weight[:, ::2] = 0
    return net


def save_state(path: Path, *, pruned: str = "") -> Path:
    """The weights as a file that needs --arch."""
    torch.save(small_net(pruned=pruned).state_dict(), path)
    return path


ARCH = f"{__name__}:small_net"
