"""Scripts and programs from files that ask for more memory than a machine has are refused before
they get it; networks run."""

import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from subpc.errors import ConfigError, UnsupportedModelError
from subpc.frontend.from_torch.bounded_run import run_bounded
from subpc.frontend.import_model import import_model
from tests.frontend.small_model import SHAPE, save_script


class Ones(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.ones([1 << 33]).sum()


class Full(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.full([x.size(0) << 17, 1 << 17], 2.0).sum()


class NeverRead(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.zeros([1 << 33])
        y[0] = x[0, 0, 0, 0]
        return x + y[0]


class Expanded(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + x[:, :1, :1, :1].expand(-1, -1, 1 << 17, 1 << 17).contiguous().sum()


class ReadManyTimes(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + x[:, :1, :1, :1].expand(1, 1, 1 << 17, 1 << 17).sum()


class Repeated(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + x.repeat(1, 1, 1 << 14, 1 << 14).sum()


class AsItsValuesSay(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + x.flatten().repeat_interleave(torch.full([x.numel()], 1 << 30)).sum()


class ManyConstants(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [torch.ones([1 << 25]) for _ in range(40)]
        return x + torch.cat(parts).sum()


class ManyOfTheInput(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [x]
        for _ in range(20):
            parts.append(x.new_ones([1 << 27]))
        return x + parts[-1][0]


HUGE = [
    Ones, Full, NeverRead, Expanded, ReadManyTimes, Repeated, AsItsValuesSay, ManyConstants,
    ManyOfTheInput,
]  # fmt: skip


def _refused(run: Callable[[], object]) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UnsupportedModelError, match="elements"):
        run()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 5 << 20, "a part of it was made"


@pytest.mark.parametrize("kind", HUGE)
def test_scripts(kind: type[nn.Module], tmp_path: Path) -> None:
    save_script(kind(), tmp_path / "m.pt")
    _refused(lambda: import_model(tmp_path / "m.pt", shapes=[SHAPE]))


@pytest.mark.parametrize("batch", [None, torch.export.Dim("batch", min=1, max=8)])
@pytest.mark.parametrize("kind", [Ones, NeverRead, Expanded, Repeated])
def test_programs(kind: type[nn.Module], batch: object, tmp_path: Path) -> None:
    shapes = {"x": {0: batch}} if batch is not None else None
    program = torch.export.export(kind(), (torch.rand(2, *SHAPE[1:]),), dynamic_shapes=shapes)
    torch.export.save(program, tmp_path / "m.pt2")
    size = (2, *SHAPE[1:])
    _refused(lambda: import_model(tmp_path / "m.pt2", shapes=[size]))


class Everyday(nn.Module):
    """Anchors, masks and positions of ordinary size, and what depends on values."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        grid = torch.arange(x.size(3)).expand(x.size(2), x.size(3)).contiguous()
        chosen = x[x > 0.5]
        return x + grid.repeat(1, 1, 1, 1) + chosen.sum() + torch.nonzero(x > 0.5).sum()


def test_networks_run() -> None:
    run_bounded(torch.jit.script(Everyday()), (torch.rand(SHAPE),), [])


def test_shapes_that_do_not_fit_are_said_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    save_script(nn.Conv2d(4, 4, 3), tmp_path / "m.pt")
    with pytest.raises(ConfigError, match="cannot run on input of shape"):
        import_model(tmp_path / "m.pt", shapes=[SHAPE])
    assert capfd.readouterr().err == ""


def test_what_weights_are_made_into_may_be_as_large_as_they() -> None:
    weight = torch.zeros(1 << 20)
    with pytest.raises(UnsupportedModelError, match="so many are not accepted"):
        run_bounded(_Constants(65), (torch.rand(SHAPE),), [])
    run_bounded(_Constants(65), (torch.rand(SHAPE),), [weight])


class _Constants(nn.Module):
    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(self.count):
            x = x + torch.empty(1 << 20)[0] * 0
        return x


class ManyMadeOfAWeight(nn.Module):
    """Each is small enough; all of them are there at once."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [self.weight.repeat(1 << 24) + i for i in range(6)]
        return x * sum(part[:4] for part in parts).sum(0, keepdim=True)


def test_what_is_there_at_once_of_weights_is_counted_together(tmp_path: Path) -> None:
    program = torch.export.export(ManyMadeOfAWeight(), (torch.rand(SHAPE),))
    torch.export.save(program, tmp_path / "m.pt2")
    with pytest.raises(UnsupportedModelError, match="elements from its weights"):
        import_model(tmp_path / "m.pt2", shapes=[SHAPE])
