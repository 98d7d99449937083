"""Pooling, concatenation of channels and reshapes become operators that know what moves."""

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from tests.frontend.small_model import Calls, Function
from tests.passes.evaluate import assert_same, attributes, operators, stages

SHAPE = (2, 4, 8, 6)


def recognise(function: Function) -> tuple[list[str], list[dict[str, Any]]]:
    """Operators and their attributes afterwards."""
    before, after = stages(Calls(function), SHAPE, until="recognise_shapes")
    assert_same(before, after, torch.randn(SHAPE, generator=torch.Generator().manual_seed(0)))
    names = operators(after)
    return names, [
        a
        for name in dict.fromkeys(names)
        if name.startswith("subpc")
        for a in attributes(after, f"relax.{name}")
    ]


def test_max_pool() -> None:
    names, (pool,) = recognise(lambda x: F.max_pool2d(x, (3, 2), (2, 1), (1, 0)))
    assert names == ["subpc.pool2d"]
    assert (pool["kind"], pool["size"], pool["strides"], pool["padding"]) == (
        "max",
        (3, 2),
        (2, 1),
        (1, 0, 1, 0),
    )


@pytest.mark.parametrize("counted", [True, False])
def test_average_pool(counted: bool) -> None:
    names, (pool,) = recognise(lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=counted))
    assert names == ["subpc.pool2d"]
    assert (pool["kind"], bool(pool["count_include_pad"])) == ("avg", counted)


def test_equal_windows_are_an_ordinary_pool() -> None:
    names, (pool,) = recognise(lambda x: F.adaptive_avg_pool2d(x, (4, 3)))
    assert names == ["subpc.pool2d"]
    assert (pool["size"], pool["strides"]) == ((2, 2), (2, 2))


def test_unequal_windows_are_left_alone() -> None:
    assert recognise(lambda x: F.adaptive_avg_pool2d(x, (3, 4)))[0] == ["nn.adaptive_avg_pool2d"]


GLOBAL: list[Function] = [
    lambda x: F.adaptive_avg_pool2d(x, 1),
    lambda x: x.mean((2, 3), keepdim=True),
    lambda x: F.avg_pool2d(x, (8, 6)),
]


@pytest.mark.parametrize("function", GLOBAL)
def test_global_pool(function: Function) -> None:
    assert recognise(function)[0] == ["subpc.global_pool"]


def test_global_pool_and_what_flattens_it() -> None:
    for function in (lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1), lambda x: x.mean((2, 3))):
        assert recognise(function)[0] == ["subpc.global_pool", "subpc.view"]


def test_other_means_are_left_alone() -> None:
    assert recognise(lambda x: x.mean((1, 2)))[0] == ["mean"]


def test_concatenation_of_channels() -> None:
    names, (concat,) = recognise(lambda x: torch.cat([x.relu(), x, x.exp()], 1))
    assert names[-1] == "subpc.concat"
    assert concat["out_shape"] == (2, 12, 8, 6)


@pytest.mark.parametrize("axis", [0, 2, 3])
def test_other_concatenations_are_left_alone(axis: int) -> None:
    assert "subpc.concat" not in recognise(lambda x: torch.cat([x.relu(), x], axis))[0]


def test_reshapes_are_views() -> None:
    names, (view,) = recognise(lambda x: x.reshape(2, 2, 2, 48))
    assert names == ["subpc.view"]
    assert view["out_shape"] == (2, 2, 2, 48)
