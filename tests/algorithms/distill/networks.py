"""A small network, half of its blocks gone or of few bits, and images that it is for."""

import copy

import torch
from torch import nn

from subpc.algorithms.blocks.compress import compress_blocks
from subpc.algorithms.blocks.config import BlockConfig
from subpc.algorithms.images.random_images import random_shapes
from subpc.algorithms.network.checked_copy import set_weight
from subpc.algorithms.numerics.quantizers import Quantized, quantize_ternary, quantize_uniform

IMAGES = random_shapes(48, 3, 12, seed=1)
OTHERS = random_shapes(64, 3, 12, seed=2)


def network() -> nn.Module:
    """Batch norms with the statistics of images."""
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 16, 3, stride=2, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 8)),
    )
    for module in net:
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            nn.init.uniform_(module.weight, 0.5, 1.5)
    with torch.no_grad():
        net(IMAGES)
        net[-1].weight.mul_(6)
    return net.eval()


def in_blocks(net: nn.Module) -> nn.Module:
    """Half of the blocks of 8 filters gone, the smallest, and nothing made good."""
    config = BlockConfig(n=8, sparsity=0.5, criterion="l1", compensation="none")
    return compress_blocks(net, config)[0]


def in_few_bits(net: nn.Module) -> tuple[nn.Module, dict[str, Quantized]]:
    """Weights of 3 bits, rounded and nothing made good; the second layer ternary."""
    changed, codes = copy.deepcopy(net), {}
    for name, layer in changed.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            weight = layer.weight.detach()
            codes[name] = (
                quantize_ternary(weight, per_channel=True)
                if name == "3"
                else quantize_uniform(weight, 3, per_channel=True)
            )
            set_weight(layer, codes[name].dequantize())
    return changed, codes
