"""Small networks whose channels are coupled in one way each, and channels of them that are dead."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Sequential):
    """Convolution, batch norm that has seen something, activation."""

    def __init__(
        self, inputs: int, outputs: int, size: int = 1, groups: int = 1, *, bends: bool = True
    ) -> None:
        norm = nn.BatchNorm2d(outputs)
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias)
        super().__init__(
            nn.Conv2d(inputs, outputs, size, 1, size // 2, groups=groups, bias=False),
            norm,
            nn.ReLU6() if bends else nn.Identity(),
        )


class Gate(nn.Module):
    """Squeeze-and-excite, of convolutions or of linear layers between two views."""

    def __init__(self, channels: int, *, linear: bool) -> None:
        super().__init__()
        self.linear = linear
        self.reduce = nn.Linear(channels, 4) if linear else nn.Conv2d(channels, 4, 1)
        self.expand = nn.Linear(4, channels) if linear else nn.Conv2d(4, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, c, h, w) to the same."""
        batch, channels, _, _ = x.size()
        y = F.adaptive_avg_pool2d(x, 1)
        y = y.view(batch, channels) if self.linear else y
        y = self.expand(F.relu(self.reduce(y))).sigmoid()
        return x * (y.view(batch, channels, 1, 1) if self.linear else y)


class Inverted(nn.Module):
    """MobileNet's block: expansion, depthwise filters, perhaps a gate, projection, shortcut."""

    def __init__(self, gate: Callable[[int], nn.Module] | None = None, each: int = 1) -> None:
        super().__init__()
        self.stem, self.expand = Block(3, 8, 3), Block(8, 16)
        self.depthwise = Block(16, 16 * each, 3, groups=16)
        self.gate = gate(16 * each) if gate is not None else nn.Identity()
        self.project, self.last = Block(16 * each, 8, bends=False), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, 3, h, w) to (n, 4)."""
        x = self.stem(x)
        x = x + self.project(self.gate(self.depthwise(self.expand(x))))
        return self.last(x.mean((2, 3)))


class Grouped(nn.Module):
    """ResNeXt's block: channels go in equal numbers from each group."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Block(3, 16)
        self.blocks = nn.Sequential(Block(16, 16), Block(16, 16, 3, groups=4), Block(16, 8))
        self.last = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, 3, h, w) to (n, 4)."""
        return self.last(self.blocks(self.stem(x)).mean((2, 3)))


class Joined(nn.Module):
    """A fire module's two branches, joined and read by one convolution, and DenseNet's layer, whose
    result two read."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.left, self.right = Block(3, 8), Block(8, 8), Block(8, 16, 3)
        self.dense, self.grown = Block(24, 8), Block(8, 8, 3)
        self.first, self.second = nn.Linear(16, 4), Block(16, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, 3, h, w) to (n, 4)."""
        x = self.stem(x)
        x = self.dense(torch.cat([self.left(x), self.right(x)], 1))
        x = torch.cat([x, self.grown(x)], 1)
        return self.first(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1)) + self.second(x).mean(
            (1, 2, 3), keepdim=False
        ).unsqueeze(1)


class Stream(nn.Module):
    """A residual stream of three writers and three readers, the last behind a flattened plane."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Block(3, 8, 3, bends=False)
        self.inner = nn.ModuleList(
            nn.Sequential(Block(8, 16, 3), Block(16, 8, 3, bends=False)) for _ in range(2)
        )
        self.last = nn.Linear(8 * 4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, 3, h, w) to (n, 4)."""
        x = self.stem(x)
        for block in self.inner:
            x = F.relu(x + block(x))
        return self.last(F.adaptive_avg_pool2d(x, 2).flatten(1))


NETS: dict[str, Callable[[], nn.Module]] = {
    "depthwise": Inverted,
    "depthwise, two filters each": lambda: Inverted(each=2),
    "gate of convolutions": lambda: Inverted(lambda channels: Gate(channels, linear=False)),
    "gate of linear layers": lambda: Inverted(lambda channels: Gate(channels, linear=True)),
    "grouped": Grouped,
    "joined": Joined,
    "stream": Stream,
}


def made(name: str, *, dead: bool = False) -> nn.Module:
    """One of NETS with fixed weights, in eval mode, whose batch norms have seen images.

    dead: a quarter of the channels of every batch norm gives nothing, a part of each group's.
    """
    torch.manual_seed(0)
    net = NETS[name]()
    gone = slice(None, None, 4) if name == "grouped" else None
    with torch.no_grad():
        for norm in [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]:
            norm.momentum = None  # statistics are those of all that was seen
            quarter = gone or slice(norm.num_features // 4)
            norm.weight[quarter] *= not dead
            norm.bias[quarter] *= not dead
        for _ in range(8):
            net.train()(torch.randn(16, 3, 8, 8))
    return net.eval().requires_grad_(False)
