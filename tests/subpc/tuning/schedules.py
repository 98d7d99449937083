"""What tests of the tuner share: a small network with every kernel family, its workloads, and
databases written by hand."""

from pathlib import Path

import torch
from torch import nn

from subpc.compiler.compile_model import rewritten
from subpc.machine.target import parse_target
from subpc.passes.pipeline import Rewritten
from subpc.tuned_schedules import database as tuning_db
from subpc.tuned_schedules.record import Machine, Trial
from subpc.tuning.tune import machine_of

NATIVE = "llvm -mcpu=native"
SIDE = 15


class Block(nn.Module):
    """A residual block of sparse convolutions."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.conv, self.point = nn.Conv2d(32, 32, 3, padding=1), nn.Conv2d(32, 32, 1)
        for layer in (self.conv, self.point):
            prune(layer, n)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.point(torch.relu(self.conv(x))))


def prune(conv: nn.Conv2d, n: int, kept: int = 8) -> None:
    """Leave `kept` random input channels to every group of n filters."""
    groups, channels = conv.out_channels // n, conv.in_channels
    mask = torch.rand(groups, channels).argsort(1) < kept
    conv.weight.data.view(groups, n, channels, -1).mul_(mask[:, None, :, None])


def small_net() -> nn.Module:
    """Dense stem, sparse blocks with N = 16 and 4, strides, depthwise and grouped convolutions."""
    torch.manual_seed(0)
    strided = nn.Conv2d(32, 32, 3, stride=2, padding=1)
    prune(strided, 4)
    layers = [
        nn.Conv2d(3, 32, 3, padding=1),
        nn.ReLU(),
        Block(16),
        Block(4),
        nn.Conv2d(32, 32, 3, padding=1, groups=32),
        nn.ReLU(),
    ]
    layers += [
        strided,
        nn.Conv2d(32, 32, 3, stride=2, padding=1, groups=32),
        nn.Conv2d(32, 64, 3, padding=1, groups=4),
    ]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)]
    return nn.Sequential(*layers).eval()


def example(batch: int = 1) -> torch.Tensor:
    """An input of `small_net`."""
    return torch.randn(batch, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def network(batch: int = 1, target: str = NATIVE, model: nn.Module | None = None) -> Rewritten:
    """`small_net` as the tuner sees it."""
    isa = parse_target(target).isa
    (found,) = rewritten(
        model or small_net(),
        example(batch),
        shapes=None,
        arch=None,
        trust_pickle=False,
        isa=isa,
        sparse="always",
    )
    return found


def machine(threads: int = 2, target: str = NATIVE) -> Machine:
    """This machine, as records name it."""
    return machine_of(parse_target(target), threads)


def write_choices(
    path: Path, model: Rewritten, choices: dict[str, dict[str, int | str]], where: Machine
) -> None:
    """A database in which each of these schedules, by layer name, has been found to be the best."""
    for layer, choice in choices.items():
        workload = model.workloads[layer].to_dict()
        tuning_db.append(
            path, Trial(workload=workload, choice=choice, machine=where, ratio=0.9, accepted=True)
        )
