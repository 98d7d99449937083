"""The network that the tests of the data-free methods share: two convolutions with batch norms that
have seen something."""

import torch
from torch import nn


def network(seed: int = 0, *, filters: int = 6) -> nn.Sequential:
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, filters, 3, padding=1, bias=False),
        nn.BatchNorm2d(filters),
    ).eval()
    for norm in (net[1], net[4]):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias)
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    return net
