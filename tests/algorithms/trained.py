"""A small network that has learned something: statistics of random weights follow no rule that
could be tested."""

import functools
import itertools

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """1,797 normalised images of 8x8 and their classes; the last 400 are for testing."""
    images, classes = load_digits(return_X_y=True)
    return torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8) / 6 - 0.8, torch.tensor(
        classes
    )


def accuracy(net: nn.Module) -> float:
    """Share of test images put into their class, in per cent."""
    x, y = digits()
    with torch.no_grad():
        return 100 * float((net(x[-400:]).argmax(1) == y[-400:]).float().mean())


@functools.cache
def trained() -> nn.Module:
    """Five convolutions with batch norm and one shortcut, trained for seconds. Do not change it."""
    torch.manual_seed(0)
    net, (x, y) = _Net(), digits()
    optimizer = torch.optim.SGD(
        net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3, nesterov=True
    )
    for _ in range(12):
        for batch in torch.randperm(len(y) - 400).split(64):
            optimizer.zero_grad()
            F.cross_entropy(net(x[batch]), y[batch]).backward()
            optimizer.step()
        optimizer.param_groups[0]["lr"] *= 0.75
    return net.eval()


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        widths = (1, 16, 32, 32, 32, 32)
        self.convs = nn.ModuleList(
            nn.Conv2d(i, o, 3, 1, 1, bias=False) for i, o in itertools.pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths[1:])
        self.fc = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, 1, 8, 8) to scores (n, 10)."""
        for index in (0, 1):
            x = F.relu(self.norms[index](self.convs[index](x)))
        y = F.max_pool2d(x, 2)
        x = F.relu(self.norms[2](self.convs[2](y)))
        y = F.relu(self.norms[3](self.convs[3](x)) + y)
        x = F.relu(self.norms[4](self.convs[4](y)))
        scores: torch.Tensor = self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))
        return scores
