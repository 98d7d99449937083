"""Arithmetic on activations becomes one pass over memory."""

from collections.abc import Callable

import torch
from torch import nn

from subpc.passes import ops
from subpc.passes.fuse_elementwise import MAX_OPERANDS, MAX_WORDS
from tests.passes.evaluate import assert_same, attributes, operators, stages

SHAPE = (2, 4, 5, 6)
Forward = Callable[..., torch.Tensor]


class Calls(nn.Module):
    def __init__(self, function: Forward) -> None:
        super().__init__()
        self.function = function
        self.register_buffer("scale", torch.linspace(0.5, 2, 4).reshape(4, 1, 1))

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.function(self, *inputs)


def fuse(function: Forward, inputs: int = 2) -> tuple[list[str], list[dict[str, object]]]:
    shapes = [SHAPE] * inputs
    before, after = stages(Calls(function), *shapes, until="fuse_elementwise")
    assert_same(
        before,
        after,
        *(torch.randn(SHAPE, generator=torch.Generator().manual_seed(i)) for i in range(inputs)),
    )
    return operators(after), attributes(after, ops.ELEMENTWISE)


def test_a_chain_is_one_pass() -> None:
    names, (call,) = fuse(lambda n, x, y: ((x + y).relu() * x - 0.5) / 3)
    assert names == ["subpc.elementwise"]
    assert call["program"] == (
        "arg 0",
        "arg 1",
        "add",
        "act relu",
        "arg 0",
        "mul",
        "const 0.5",
        "sub",
        "const 3.0",
        "div",
    )
    assert call["kinds"] == ("tensor", "tensor")


def test_an_operand_for_each_channel() -> None:
    names, (call,) = fuse(lambda n, x, y: x * n.scale + y)
    assert names == ["subpc.elementwise"]
    assert sorted(call["kinds"]) == ["channel", "tensor", "tensor"]  # type: ignore[call-overload]


def test_an_operand_for_each_channel_of_each_image() -> None:
    """Squeeze and excitation: the gate is computed once a channel, the product once a pixel."""
    names, (gate, product) = fuse(lambda n, x, y: x * y.mean((2, 3), keepdim=True).sigmoid())
    assert names == ["subpc.global_pool", "subpc.elementwise", "subpc.elementwise"]
    assert (gate["kinds"], product["kinds"]) == (("tensor",), ("tensor", "image_channel"))


def test_a_value_that_is_read_twice_is_computed_once() -> None:
    names, calls = fuse(lambda n, x, y: torch.cat([(z := x + y), z * 2], 1))
    assert names.count("subpc.elementwise") == len(calls) == 2


def test_programs_stay_short_enough_for_the_registers() -> None:
    inputs = MAX_OPERANDS + 3
    names, calls = fuse(lambda n, *xs: sum(xs[1:], xs[0]), inputs)
    assert len(calls) > 1
    assert all(len(call["kinds"]) <= MAX_OPERANDS for call in calls)  # type: ignore[arg-type]
    assert set(names) == {"subpc.elementwise"}


def test_broadcasting_of_other_kinds_is_left_alone() -> None:
    names, _ = fuse(lambda n, x, y: x + y[:, :, :1])
    assert "add" in names


def test_long_chains_become_several_passes() -> None:
    def forward(n: Calls, x: torch.Tensor) -> torch.Tensor:
        for i in range(100):
            x = x * 1.01 - i
        return x

    names, calls = fuse(forward, inputs=1)
    assert 200 * 2 // MAX_WORDS <= len(names) <= 200 * 2 // MAX_WORDS + 2
    assert all(len(call["program"]) <= MAX_WORDS for call in calls)  # type: ignore[arg-type]
