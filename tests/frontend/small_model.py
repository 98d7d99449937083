"""Small networks, and every kind of file that one can be saved as."""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from torch.export import Dim

SHAPE = (1, 3, 8, 8)
Function = Callable[[torch.Tensor], torch.Tensor]
ARCH = f"{__name__}:small"


class Small(nn.Module):
    """Small enough to be written hundreds of times."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.conv(x).relu().mean((2, 3)))


class Open(nn.Module):
    """Dictionaries out, sizes that are worked out, and different branches for some: everything that
    an exported program can say."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        y = self.conv(x)
        if x.shape[2] % 2 == 0:
            y = y + 1
        batch, channels, height, width = y.shape
        return {"rows": y.view(batch, channels, height * width).mean(2), "all": y.mean()}


class Calls(nn.Module):
    """A function as a network."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


def small(num_classes: int = 1000) -> Small:
    return Small(num_classes)


def save_script(model: nn.Module, path: Path) -> None:
    torch.jit.save(torch.jit.script(model), str(path))


def save_trace(model: nn.Module, path: Path) -> None:
    torch.jit.save(torch.jit.trace(model, torch.rand(SHAPE)), str(path))


def save_program(model: nn.Module, path: Path) -> None:
    torch.export.save(torch.export.export(model, (torch.rand(SHAPE),)), path)


def save_open(path: Path) -> None:
    """A program for images of several sizes."""
    shapes = ({0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO},)
    torch.export.save(
        torch.export.export(Open().eval(), (torch.rand(2, 3, 10, 8),), dynamic_shapes=shapes), path
    )


def save_state(model: nn.Module, path: Path) -> None:
    torch.save(model.state_dict(), path)


WRITERS: dict[str, Callable[[nn.Module, Path], None]] = {
    "script.pt": save_script,
    "trace.pt": save_trace,
    "program.pt2": save_program,
    "state.pt": save_state,
    "legacy.pth": lambda m, p: torch.save(m.state_dict(), p, _use_new_zipfile_serialization=False),
    "state.safetensors": lambda m, p: save_file(m.state_dict(), p),
    "checkpoint.pth": lambda m, p: torch.save(
        {"epoch": 3, "state_dict": {f"module.{k}": v for k, v in m.state_dict().items()}}, p
    ),
}
