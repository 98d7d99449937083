"""Outputs are called what the author of a PyTorch network calls them, however deep in the result
they are."""

import collections
import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

from subpc.frontend.from_torch.network import exported_network
from subpc.frontend.from_torch.to_relax import import_exported


class Boxes(NamedTuple):
    boxes: torch.Tensor
    scores: torch.Tensor


@dataclasses.dataclass
class Logits:
    logits: torch.Tensor
    aux: torch.Tensor


torch.export.register_dataclass(Logits)


class Returning(nn.Module):
    """A result of any form."""

    def __init__(self, form: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.form = form

    def forward(self, x: torch.Tensor) -> Any:
        return self.form(x + 1)


FORMS: dict[str, tuple[Callable[[torch.Tensor], Any], tuple[str, ...]]] = {
    "a tensor": (lambda x: x, ("output",)),
    "a list of one": (lambda x: [x], ("output",)),
    "a tuple": (lambda x: (x, x * 2), ("output0", "output1")),
    "a dict": (lambda x: {"out": x, "aux": x * 2}, ("out", "aux")),
    "a dict of one": (lambda x: {"out": x}, ("out",)),
    "an OrderedDict": (lambda x: collections.OrderedDict(out=x, aux=x * 2), ("out", "aux")),
    "a dict of lists": (
        lambda x: {"features": [x, x * 2], "out": x * 3},
        ("features.0", "features.1", "out"),
    ),
    "a tuple with a dict": (lambda x: (x, {"mask": x * 2}), ("output0", "output1.mask")),
    "a named tuple": (lambda x: Boxes(x, x * 2), ("boxes", "scores")),
    "a dataclass": (lambda x: Logits(x, x * 2), ("logits", "aux")),
    "names that are equal when joined": (
        lambda x: {"a": {"b": x}, "a.b": x * 2},
        ("output0", "output1"),
    ),
    "None between tensors": (
        lambda x: {"loss": None, "out": x, "more": (x * 2,)},
        ("out", "more.0"),
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_names_of_outputs(form: str) -> None:
    make, names = FORMS[form]
    assert (
        import_exported(exported_network(Returning(make).eval(), (torch.rand(1, 2),))).output_names
        == names
    )
