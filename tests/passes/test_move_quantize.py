"""Roundings go to the layers whose results they round, and no value is rounded twice."""

import torch
import tvm
from torch import nn

from subpc.passes.move_quantize import move_quantize
from subpc.schedules.quantization import Quantization
from tests.passes.evaluate import operators
from tests.passes.integer_meanings import evaluate_exactly
from tests.passes.roundings import UNIT, Where, everywhere, rounded_network

GRID = Quantization(scale=0.02, zero_point=100)


def after(op: str, grid: Quantization = GRID) -> Where:
    """Round the results of one operator alone."""
    return lambda name, number: grid if name == op else None


def moved(net: nn.Module, shape: tuple[int, ...], where: Where) -> list[str]:
    """The operators afterwards, of a network that means what it meant before."""
    before = rounded_network(net, shape, where=where, weights=False)
    module = move_quantize(before)
    assert_equal(before, module, shape)
    return operators(module)


def assert_equal(before: tvm.IRModule, module: tvm.IRModule, shape: tuple[int, ...]) -> None:
    x = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for a, b in zip(evaluate_exactly(before, x), evaluate_exactly(module, x), strict=True):
        assert torch.equal(a, b)
        assert a.unique().numel() > 4


class Body(nn.Module):
    def __init__(self, body: object) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.body = nn.Conv2d(4, 8, 1), nn.Conv2d(8, 8, 1), body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(self, x)  # type: ignore[operator]


SHAPE = (1, 4, 6, 6)


def test_a_rounding_after_pooling_comes_before_it() -> None:
    names = moved(Body(lambda n, x: torch.max_pool2d(n.a(x), 2)), SHAPE, after("pool2d"))
    assert names == ["subpc.conv2d", "subpc.fake_quantize", "subpc.pool2d"]


def test_a_mean_is_rounded_where_it_is_computed() -> None:
    net = Body(lambda n, x: torch.nn.functional.avg_pool2d(n.a(x), 2))
    assert moved(net, SHAPE, after("pool2d"))[1:] == ["subpc.pool2d", "subpc.fake_quantize"]


def test_a_rounding_goes_through_all_that_moves_values_only() -> None:
    def body(n: Body, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.max_pool2d(n.a(x), 2), torch.max_pool2d(n.a(x + 1), 2)], 1)

    names = moved(Body(body), SHAPE, after("concat"))
    assert names.count("subpc.fake_quantize") == 2
    assert names[-1] == "subpc.concat"
    assert names.index("subpc.fake_quantize") == names.index("subpc.conv2d") + 1


def test_what_others_read_unrounded_stays_unrounded() -> None:
    def body(n: Body, x: torch.Tensor) -> torch.Tensor:
        y = torch.max_pool2d(n.a(x), 2)
        return n.b(y) * y

    names = moved(Body(body), SHAPE, after("pool2d"))
    # with_roundings lets all read the rounded value: the output must not tell the two apart.
    assert names[:3] == ["subpc.conv2d", "subpc.fake_quantize", "subpc.pool2d"]


def test_rounding_twice_to_the_same_codes_is_rounding_once() -> None:
    where = lambda name, number: GRID if name in ("conv2d", "pool2d") else None  # noqa: E731
    names = moved(Body(lambda n, x: torch.max_pool2d(n.a(x), 2)), SHAPE, where)
    assert names == ["subpc.conv2d", "subpc.fake_quantize", "subpc.pool2d"]


def test_rounding_to_other_codes_is_done_on_what_is_left() -> None:
    names = moved(Body(lambda n, x: torch.max_pool2d(n.a(x), 2)), SHAPE, everywhere)
    assert names[-3:] == ["subpc.fake_quantize", "subpc.pool2d", "subpc.fake_quantize"]


def test_values_of_equal_codes_are_concatenated_as_they_are() -> None:
    def body(n: Body, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([n.a(x), n.b(n.a(x))], 1)

    names = moved(Body(body), SHAPE, lambda name, number: UNIT if name == "input" else GRID)
    assert names[-1] == "subpc.concat"
    assert names.count("subpc.fake_quantize") == 1 + names.count("subpc.conv2d")


def test_parts_of_a_tensor_are_rounded_as_a_whole_only_where_all_is_read_rounded() -> None:
    def body(n: Body, x: torch.Tensor) -> torch.Tensor:
        left, right = n.a(x).split(4, 1)
        return torch.cat([right, left], 1)

    names = moved(Body(body), SHAPE, after("channels"))
    assert names == ["subpc.conv2d", "subpc.fake_quantize", *["subpc.channels"] * 2, "subpc.concat"]

    def half(n: Body, x: torch.Tensor) -> torch.Tensor:
        y = n.a(x)
        return torch.cat([y, y.split(4, 1)[0]], 1)

    assert moved(Body(half), SHAPE, after("channels"))[1:3] == [
        "subpc.channels",
        "subpc.fake_quantize",
    ]
