"""Filters sorted by norm before they are cut into blocks, without changing what the network
computes."""

import torch
from torch import nn

from subpc.algorithms.network.pairing import find_pairs


@torch.no_grad()
def rearrange(model: nn.Module) -> dict[str, str]:
    """Sort filters by falling L1 norm, in place, so that filters of like size share a block; why
    other layers keep their order.

    The "filter rearrangement" of Lin et al., 1xN pattern, arXiv 2105.14713. The order is carried
    through batch norm and ReLU into the input channels of the one convolution that reads the
    result, so the network computes the same function up to rounding; where that is not possible
    (residual sums, concatenations, grouped convolutions) the layer is left alone and named with the
    reason. It raises the magnitude that pruning a layer as a whole retains; the uniform rule, which
    takes as much from every group, has nothing to gain from groups of unlike size. Raises
    UnsupportedModelError where the network cannot be traced.
    """
    modules = dict(model.named_modules())
    pairing = find_pairs(model)
    for pair in pairing.pairs:
        first, norm, second = (modules[name] for name in (pair.first, pair.norm, pair.second))
        assert isinstance(first, nn.Conv2d) and isinstance(second, nn.Conv2d)
        order = first.weight.abs().sum((1, 2, 3)).argsort(descending=True, stable=True)
        for tensor in (
            first.weight,
            first.bias,
            norm.weight,
            norm.bias,
            norm.running_mean,
            norm.running_var,
        ):
            if isinstance(tensor, torch.Tensor):
                tensor.copy_(tensor[order])
        second.weight.copy_(second.weight[:, order])
    return pairing.left_alone
