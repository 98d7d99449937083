"""However an activation is written down, kernels see one name."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from subpc.passes import ops
from tests.frontend.small_model import Calls, Function
from tests.passes.evaluate import assert_same, attributes, operators, stages

SPELLINGS: list[tuple[str, Function]] = [
    ("relu", F.relu),
    ("relu", lambda x: x.clamp(min=0)),
    ("relu6", F.relu6),
    ("relu6", lambda x: x.clamp(0, 6)),
    ("relu6", lambda x: x.clamp(max=6).clamp(min=0)),
    ("clip -1.0 2.0", nn.Hardtanh(-1, 2)),
    (
        "clip -1.0 2.0",
        lambda x: torch.minimum(torch.maximum(x, torch.tensor(-1.0)), torch.tensor(2.0)),
    ),
    ("sigmoid", torch.sigmoid),
    ("silu", F.silu),
    ("silu", lambda x: x * torch.sigmoid(x)),
    ("silu", lambda x: torch.sigmoid(x) * x),
    ("hardsigmoid", F.hardsigmoid),
    ("hardsigmoid", lambda x: F.relu6(x + 3) / 6),
    ("hardsigmoid", lambda x: F.relu6(x + 3) * (1 / 6)),
    ("hardsigmoid", lambda x: (x / 6 + 0.5).clamp(0, 1)),
    ("hardswish", F.hardswish),
    ("hardswish", lambda x: x * F.relu6(x + 3) / 6),
    ("hardswish", lambda x: x * (F.relu6(x + 3) / 6)),
    ("hardswish", lambda x: F.hardsigmoid(x) * x),
    ("leaky_relu 0.25", nn.LeakyReLU(0.25)),
    ("gelu", nn.GELU()),
    ("gelu_tanh", nn.GELU("tanh")),
    ("exp", torch.exp),
]


@pytest.mark.parametrize(
    ("name", "function"), SPELLINGS, ids=[f"{i}-{name}" for i, (name, _) in enumerate(SPELLINGS)]
)
def test_one_name(name: str, function: Function) -> None:
    before, after = stages(Calls(function), (2, 3, 5, 4), until="recognise_activations")
    x = 6 * torch.randn((2, 3, 5, 4), generator=torch.Generator().manual_seed(0))
    assert_same(before, after, x)
    assert operators(after) == ["subpc.elementwise"]
    (call,) = attributes(after, ops.ELEMENTWISE)
    assert call["program"] == ("arg 0", f"act {name}")


OTHERS: list[Function] = [
    lambda x: F.relu6(x + 2) / 6,
    lambda x: F.relu6(x + 3) / 5,
    lambda x: (x + 1) * F.relu6(x + 3) / 6,
    lambda x: x * torch.sigmoid(x + 1),
    lambda x: (x / 5 + 0.5).clamp(0, 1),
]


@pytest.mark.parametrize("function", OTHERS)
def test_what_only_looks_like_one(function: Function) -> None:
    before, after = stages(Calls(function), (2, 3, 5, 4), until="recognise_activations")
    assert_same(
        before, after, 6 * torch.randn((2, 3, 5, 4), generator=torch.Generator().manual_seed(0))
    )
    programs = [call["program"][1] for call in attributes(after, ops.ELEMENTWISE)]
    assert not {"act hardswish", "act hardsigmoid", "act silu"} & set(programs)
