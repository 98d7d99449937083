"""How close compiled networks come to PyTorch eager: every torchvision architecture that subpc promises, at 224x224.

python benchmarks/agreement_table.py            # prints a markdown table; about five minutes on two cores
python benchmarks/agreement_table.py resnet18   # only these
"""

import sys
import time

import torch
from torch import nn

from subpc.compiler import compile
from subpc.frontend.arch import build_arch

NETWORKS = [
    *["resnet18", "resnet34", "resnet50", "resnet101", "wide_resnet50_2", "resnext50_32x4d", "vgg11", "vgg11_bn", "vgg16", "vgg16_bn"],
    *["densenet121", "mobilenet_v2", "mobilenet_v3_large", "efficientnet_b0", "squeezenet1_1", "googlenet", "shufflenet_v2_x1_0"],
    *["regnet_y_400mf", "mnasnet1_0", "convnext_tiny", "timm:tf_efficientnet_lite0"],
]
SHAPE = (1, 3, 224, 224)


def seeded(name: str) -> nn.Module:
    """Random weights, and batch-norm statistics that are not the identity."""
    torch.manual_seed(0)
    net = build_arch(name)
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d) and part.running_mean is not None and part.running_var is not None:
            part.running_mean.uniform_(-0.1, 0.1)
            part.running_var.uniform_(0.8, 1.2)
    return net.eval()


def measure(name: str) -> tuple[float, float]:
    """Largest error as a share of the output's range, and seconds to import and compile."""
    net, x = seeded(name), torch.randn(SHAPE)
    with torch.no_grad():
        expected = net(x)
    started = time.perf_counter()
    compiled = compile(net, x)
    seconds = time.perf_counter() - started
    return float((compiled(x) - expected).abs().max() / (expected.max() - expected.min())), seconds


def main() -> None:
    """Print one row a network."""
    print("| network | largest error / range | compile s |\n|---|---|---|")
    for name in sys.argv[1:] or NETWORKS:
        error, seconds = measure(name)
        print(f"| {name} | {error:.1e} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
