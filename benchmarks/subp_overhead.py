"""What SUBP costs in training: steps of a masked network beside steps of the same network without
masks, and an update of all masks.

    # ResNet-18 at 224x224 and the network of subp_fashion_mnist.py
    python benchmarks/subp_overhead.py
    python benchmarks/subp_overhead.py --steps 20

Dense and masked steps take turns in one process; the overhead of a step is the median of their
ratios. An epoch has as many steps as its data set has batches; the masks are renewed as often as
the training of that data set does.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from subpc.algorithms.subp.block_masks import Subp
from subpc.algorithms.subp.config import SubpConfig
from subpc.frontend.architectures.build import build_arch


@dataclass(frozen=True, kw_only=True)
class Case:
    """A training: network, a batch's shape, images of an epoch and of a batch there, mask updates
    an epoch."""

    name: str
    arch: str
    options: dict[str, Any]
    shape: tuple[int, ...]
    images: int
    batch: int
    updates: int = 1


# The ResNet-18 takes smaller batches here than an ImageNet training does, in which a step's masks
# cost a smaller share.
CASES = (
    Case(
        name="resnet18, 224x224, batch 16",
        arch="resnet18",
        options={},
        shape=(16, 3, 224, 224),
        images=1_281_167,
        batch=256,
    ),
    Case(
        name="resnet20 width 32, 28x28, batch 128",
        arch="subpc:resnet20",
        options={"width": 32},
        shape=(128, 1, 28, 28),
        images=60_000,
        batch=128,
        updates=10,
    ),
)
LIMIT = 0.05


def step(model: nn.Module, x: torch.Tensor, labels: torch.Tensor) -> Callable[[], None]:
    """One SGD step on a batch."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def run() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()

    return run


def seconds(function: Callable[[], object]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def measure(case: Case, steps: int) -> tuple[float, float, float]:
    """Seconds of a dense step, ratio of a masked step to it, seconds of a mask update."""
    torch.manual_seed(0)
    x = torch.randn(case.shape).to(memory_format=torch.channels_last)
    labels = torch.arange(case.shape[0]) % 10
    dense, masked = (
        build_arch(case.arch, **case.options).to(memory_format=torch.channels_last).train()
        for _ in range(2)
    )
    subp = Subp(masked, SubpConfig(n=16, sparsity=0.75, start=0, end=10))
    subp.step_epoch(5)
    pair = [step(model, x, labels) for model in (dense, masked)]
    for run in pair * 2:
        run()
    times = [[seconds(run) for run in pair] for _ in range(steps)]
    update = statistics.median(seconds(lambda: subp.step_epoch(5)) for _ in range(5))
    return (
        statistics.median(t[0] for t in times),
        statistics.median(b / a for a, b in times),
        update,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=30)
    options = parser.parse_args()
    print(
        "| training | dense step, ms | masked step | mask update, ms | an epoch with SUBP | limit"
        " |\n|---|---|---|---|---|---|"
    )
    for case in CASES:
        dense, ratio, update = measure(case, options.steps)
        epoch = dense * case.images / case.shape[0]
        overhead = ratio - 1 + case.updates * update / epoch
        verdict = "met" if overhead <= LIMIT else "**missed**"
        print(
            f"| {case.name} | {1e3 * dense:.0f} | {ratio - 1:+.1%} | {1e3 * update:.0f} |"
            f" {overhead:+.1%} | {LIMIT:.0%} {verdict} |"
        )


if __name__ == "__main__":
    main()
