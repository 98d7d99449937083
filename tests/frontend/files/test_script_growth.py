"""Scripts that make gigabytes of lists or texts while they are read: stopped in words; everyday
lists stay."""

import resource
from pathlib import Path

import pytest
import torch
from torch import nn

from subpc.errors import ModelFileError, UnsupportedModelError
from subpc.frontend.import_model import import_model
from tests.frontend.small_model import SHAPE, save_script


class Repeats(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + len([0] * 1_000_000_000)


class RepeatsTurned(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + len(x.shape[0] * 1_000_000_000 * ["a"])


class Doubles(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [x]
        for _ in range(33):
            parts = parts + parts
        return x + len(parts)


class Extends(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [0, 1]
        for _ in range(33):
            if x.dim() == 4:
                parts.extend(parts)
        return x + len(parts)


class Text(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        text = "ab"
        for _ in range(33):
            text = text + text
        return x + len(text)


class Formats(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        text = "ab"
        for _ in range(33):
            text = "{}{}".format(text, text)  # noqa: UP032
        return x + len(text)


class Everyday(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        sizes = [1, 2] * 3 + [x.size(1)]
        sizes.extend(sizes)
        name = f"{sizes[0]} of " + "them"
        parts = [x] * 2
        return torch.cat(parts + [x], 1) + len(sizes) + len(name)  # noqa: RUF005


@pytest.mark.parametrize("kind", [Repeats, RepeatsTurned, Doubles, Extends, Text, Formats])
def test_what_grows_is_stopped_before_it_is_large(kind: type[nn.Module], tmp_path: Path) -> None:
    save_script(kind(), tmp_path / "m.pt")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UnsupportedModelError, match="lists or texts of more than"):
        import_model(tmp_path / "m.pt", shapes=[SHAPE])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000


class Replaces(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + len(str(x.size(1)).replace("3", "aaaa"))


class Joins(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + len("a".join([str(x.size(1))] * 2))


@pytest.mark.parametrize("kind", [Replaces, Joins])
def test_texts_that_multiply_are_refused(kind: type[nn.Module], tmp_path: Path) -> None:
    save_script(kind(), tmp_path / "m.pt")
    with pytest.raises(ModelFileError, match=r"calls aten::(replace|join)"):
        import_model(tmp_path / "m.pt", shapes=[SHAPE])


def test_everyday_lists_are_followed(tmp_path: Path) -> None:
    save_script(Everyday(), tmp_path / "m.pt")
    (imported,) = import_model(tmp_path / "m.pt", shapes=[SHAPE])
    assert imported.module["main"].ret_ty.shape[1].value == 9
