"""TorchScript that would never end: stopped while it is read, whatever it repeats itself with, and
in words."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from subpc.errors import ModelFileError, UnsupportedModelError
from subpc.frontend.import_model import import_model
from subpc.frontend.reference import run_reference
from tests.frontend.files.archives import read, write
from tests.frontend.small_model import SHAPE, Small, save_script


class Loops(nn.Module):
    """As many turns as its attribute says, with nothing in them that a limit on memory or tensors
    would see."""

    def __init__(self, turns: int) -> None:
        super().__init__()
        self.turns = turns

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        i = 0
        while i != self.turns:
            i += 1
        return x * i


class Nested(Loops):
    """The same number of turns in loops that are short, each of them in a function of its own."""

    def inner(self, i: int) -> int:
        for _ in range(100):
            i += 1
        return i

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        i = 0
        for _ in range(self.turns // 100):
            i = self.inner(i)
        return x * i


@pytest.mark.parametrize("turns", [-1, 10_200])
@pytest.mark.parametrize("kind", [Loops, Nested])
def test_loops_that_do_not_end_are_stopped(kind: type[Loops], turns: int, tmp_path: Path) -> None:
    save_script(kind(turns if kind is Loops else abs(turns) * 10**6), tmp_path / "m.pt")
    with pytest.raises(UnsupportedModelError, match=r"more than 10,000 turns\.\n") as caught:
        import_model(tmp_path / "m.pt", shapes=[SHAPE])
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize("kind", [Loops, Nested])
def test_loops_of_networks_are_run_to_their_end(kind: type[Loops], tmp_path: Path) -> None:
    save_script(kind(9_000), tmp_path / "m.pt")
    (imported,) = import_model(tmp_path / "m.pt", shapes=[SHAPE])
    x = np.ones(SHAPE, np.float32)
    assert run_reference(imported, [x])[0] == pytest.approx(9_000 * x)


def test_functions_that_call_each_other_without_end_are_refused(tmp_path: Path) -> None:
    """Each calls the one before twice: 2**40 calls from a few kilobytes."""
    save_script(Small().eval(), tmp_path / "m.pt")
    script = read(tmp_path / "m.pt")
    name = next(name for name in script if name.endswith(".py") and b"class Small" in script[name])
    kind = script[name].decode().split("self: ")[1].split(",")[0]
    methods = f"  def call0(self: {kind}, x: Tensor) -> Tensor:\n    return torch.neg(x)\n"
    for i in range(40):
        methods += (
            f"  def call{i + 1}(self: {kind}, x: Tensor) -> Tensor:\n    return"
            f" (self).call{i}((self).call{i}(x, ), )\n"
        )
    source = (
        script[name]
        .decode()
        .replace("    fc = self.fc\n", "    fc = self.fc\n    x = (self).call40(x, )\n")
    )
    head, body = source.split("  def forward", 1)
    changed = f"{head}{methods}  def forward{body}"
    with pytest.raises(ModelFileError, match="call each other more than 1,000,000 times"):
        import_model(write(tmp_path / "m.pt", {**script, name: changed.encode()}), shapes=[SHAPE])


@torch.jit.interface
class Step(nn.Module):
    def one(self, x: torch.Tensor) -> torch.Tensor:
        pass


class Negative(nn.Module):
    def one(self, x: torch.Tensor) -> torch.Tensor:
        return -x


class ThroughInterface(nn.Module):
    step: Step

    def __init__(self) -> None:
        super().__init__()
        self.step = Negative()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.step.one(x)


class Compared:
    def __init__(self, value: int) -> None:
        self.value = value

    def __lt__(self, other: "Compared") -> bool:
        return self.value < other.value


class SortsObjects(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        entries = [Compared(2), Compared(1)]
        entries.sort()
        return x * entries[0].value


@pytest.mark.parametrize("kind", [ThroughInterface, SortsObjects])
def test_calls_that_nobody_can_count_are_refused(kind: type[nn.Module], tmp_path: Path) -> None:
    save_script(kind(), tmp_path / "m.pt")
    with pytest.raises(
        ModelFileError, match=r"cannot be run: what .* calls is found out only when it runs\.\n"
    ):
        import_model(tmp_path / "m.pt", shapes=[SHAPE])
