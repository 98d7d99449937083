"""What batch norms say of the layers in front of them, by the layers' names."""

import numpy as np
import torch
from torch import nn

from subpc.passes.norm_statistics import norm_statistics
from tests.passes.evaluate import stages


class Net(nn.Module):
    """A norm behind a convolution, one behind a sum, one behind a convolution that others read."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.third = (nn.Conv2d(4, 4, 1) for _ in range(3))
        self.norm, self.of_sum, self.of_shared = (nn.BatchNorm2d(4) for _ in range(3))
        for norm in (self.norm, self.of_sum, self.of_shared):
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
            norm.running_var = torch.rand(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.first(x))
        y = self.of_sum(self.second(y) + x)
        shared = self.third(y)
        return self.of_shared(shared) + shared


def test_a_norm_tells_mean_and_deviation_of_the_layer_that_it_alone_reads() -> None:
    net = Net()
    before, _ = stages(net, (1, 4, 5, 5), until="fold_affine")
    found = norm_statistics(before)
    assert set(found) == {"first"}
    weight, bias = net.norm.weight.detach(), net.norm.bias.detach()
    assert np.allclose(found["first"].mean, bias)
    # Of values with the running statistics, what the norm makes of them.
    deviation = (net.norm.running_var / (net.norm.running_var + net.norm.eps)).sqrt() * weight.abs()
    assert np.allclose(found["first"].deviation, deviation)
