"""Residual additions and activations become part of the layer that produces their operand."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from subpc.passes import ops
from tests.passes.evaluate import assert_same, attributes, operators, stages

SHAPE = (2, 8, 7, 6)


class Two(nn.Module):
    """Two convolutions, a fully connected layer, and a forward pass over them that each test writes
    itself."""

    def __init__(self, forward: Callable[["Two", torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.fc = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1), nn.Linear(8, 4)
        self.body = forward

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(self, x)


def fuse(
    forward: Callable[[Two, torch.Tensor], torch.Tensor],
) -> tuple[list[str], list[dict[str, object]], list[int]]:
    """Operators afterwards, attributes of the convolutions, and how many operands each has."""
    from subpc.passes.dataflow import Dataflow

    before, after = stages(Two(forward), SHAPE, until="fuse_epilogue")
    assert_same(before, after, torch.randn(SHAPE, generator=torch.Generator().manual_seed(2)))
    graph = Dataflow(after["main"])
    operands = [
        len(call.args) for var in graph.live() if (call := graph.call(var, ops.CONV2D)) is not None
    ]
    return operators(after), attributes(after, ops.CONV2D), operands


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (F.relu, "relu"),
        (F.relu6, "relu6"),
        (F.hardswish, "hardswish"),
        (F.silu, "silu"),
        (lambda x: x.clamp(-1, 2), "clip -1.0 2.0"),
    ],
)
def test_an_activation_joins_its_convolution(
    function: Callable[[torch.Tensor], torch.Tensor], name: str
) -> None:
    names, (conv,), _ = fuse(lambda n, x: function(n.a(x)))
    assert names == ["subpc.conv2d"]
    assert conv["activation"] == name


def test_an_activation_joins_its_fully_connected_layer() -> None:
    before, after = stages(
        Two(lambda n, x: n.fc(x.mean((2, 3))).relu()), SHAPE, until="fuse_epilogue"
    )
    assert_same(before, after, torch.randn(SHAPE))
    assert attributes(after, ops.LINEAR)[0]["activation"] == "relu"


def test_addition_then_activation() -> None:
    names, (conv,), operands = fuse(lambda n, x: F.relu(n.a(x) + x))
    assert names == ["subpc.conv2d"]
    assert (conv["activation"], operands) == ("relu", [4])


def test_of_two_branches_the_later_takes_the_sum() -> None:
    names, convs, operands = fuse(lambda n, x: F.relu(n.b(x) + n.a(x)))
    assert names == ["subpc.conv2d", "subpc.conv2d"]
    assert operands == [3, 4]
    assert [c["activation"] for c in convs] == ["none", "relu"]


KEPT = {
    "the convolution is read elsewhere": (
        lambda n, x: torch.cat([(y := n.a(x)), F.relu(y)], 1),
        ["none"],
    ),
    "the activation comes first": (lambda n, x: F.relu(n.a(x)) + x, ["relu"]),
    "the sum broadcasts": (lambda n, x: n.a(x) + x.mean((2, 3), keepdim=True), ["none"]),
    "the sum is larger than the convolution": (
        lambda n, x: x + n.a(x.mean((2, 3), keepdim=True)),
        ["none"],
    ),
    "twice itself": (lambda n, x: (y := n.a(x)) + y, ["none"]),
    "a second activation": (lambda n, x: F.silu(F.relu(n.a(x))), ["relu"]),
}


@pytest.mark.parametrize("name", KEPT)
def test_what_stays_outside(name: str) -> None:
    forward, activations = KEPT[name]
    names, convs, operands = fuse(forward)
    assert len(names) > 1
    assert [c["activation"] for c in convs] == activations
    assert operands == [3]
