"""A network that every method of compression takes, in awkward kinds, and images for it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

SHAPE = (1, 3, 16, 16)
ARCH = f"{__name__}:tiny"


class Tiny(nn.Module):
    """Two pairs, a linear layer; options make it awkward."""

    def __init__(self, kind: str = "plain") -> None:
        super().__init__()
        norm: Callable[[int], nn.Module] = (
            nn.BatchNorm2d if kind != "no batch norm" else lambda channels: nn.Identity()
        )
        kernel, pad = ((3, 1), (1, 0)) if kind == "non-square" else ((3, 3), (1, 1))
        groups = 4 if kind == "grouped" else 1
        self.conv1, self.bn1 = nn.Conv2d(3, 16, kernel, padding=pad), norm(16)
        self.conv2, self.bn2 = nn.Conv2d(16, 16, kernel, padding=pad, groups=groups), norm(16)
        self.conv3, self.bn3 = nn.Conv2d(16, 16, kernel, padding=pad, groups=groups), norm(16)
        if kind == "shared weight":
            self.conv3.weight = self.conv2.weight
        self.twice = kind == "used twice"
        self.fc = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.bn1(self.conv1(x)).relu()
        x = self.bn2(self.conv2(x)).relu()
        x = self.bn2(self.conv2(x)).relu() if self.twice else self.bn3(self.conv3(x)).relu()
        return self.fc(x.mean((2, 3)))


def tiny(kind: str = "plain") -> Tiny:
    torch.manual_seed(0)
    model = Tiny(kind)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model.eval()


def program(model: nn.Module, path: Path) -> Path:
    torch.export.save(torch.export.export(model, (torch.rand(SHAPE),)), path)
    return path


def images(folder: Path, count: int, size: tuple[int, int] = (20, 16)) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(0)
    for index in range(count):
        Image.fromarray(draw.integers(0, 255, (*size, 3), np.uint8)).save(folder / f"{index}.png")
    return folder
