"""How close compiled networks come to PyTorch eager: every torchvision architecture that subpc
promises, at 224x224.

# prints a markdown table; about five minutes on two cores
python benchmarks/agreement_table.py
python benchmarks/agreement_table.py resnet18   # only these
"""

import sys
import time

import torch

from subpc.compiler.compile_model import compile
from subpc.demo.random_networks import set_statistics
from subpc.frontend.architectures.build import build_arch
from subpc.frontend.architectures.compared import COMPARED
from subpc.runtime.deviation import share_of_range

SHAPE = (1, 3, 224, 224)


def measure(name: str) -> tuple[float, float, float]:
    """Largest error over two inputs as a share of the output's range, how far the outputs lie
    apart, and seconds to compile."""
    torch.manual_seed(0)
    net = set_statistics(build_arch(name), SHAPE)
    inputs = torch.randn(2, *SHAPE)
    with torch.no_grad():
        expected = [net(x) for x in inputs]
    started = time.perf_counter()
    compiled = compile(net, inputs[0])
    seconds = time.perf_counter() - started
    error = max(share_of_range(compiled(x), e) for x, e in zip(inputs, expected, strict=True))
    return error, share_of_range(*expected), seconds


def main() -> None:
    """Print one row a network."""
    print(
        "| network | largest error / range | change with another input / range | compile s"
        " |\n|---|---|---|---|"
    )
    for name in sys.argv[1:] or COMPARED:
        error, change, seconds = measure(name)
        print(f"| {name} | {error:.1e} | {change:.2f} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
