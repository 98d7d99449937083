"""Quantized layers hold codes alone while networks run."""

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

from subpc.algorithms.network.checked_copy import checked_copy
from subpc.algorithms.network.coded_weights import CodedWeights
from subpc.algorithms.numerics.quantizers import quantize_uniform
from tests.algorithms.two_convs import network

X = torch.linspace(-1, 1, 3 * 8 * 8).view(1, 3, 8, 8)
CODES = quantize_uniform(network()[0].weight, 4)


@pytest.fixture(name="net")
def _net() -> nn.Module:
    return checked_copy(network()).requires_grad_(False)


def coded(net: nn.Module) -> CodedWeights:
    return CodedWeights(dict(net.named_modules()), fx.symbolic_trace(net).graph)


def test_a_hidden_weight_takes_no_memory_and_is_there_for_a_call(net: nn.Module) -> None:
    weights, expected = coded(net), network()
    expected[0].weight.data = CODES.dequantize()
    with weights.hidden():
        weights.set("0", CODES)
        assert (
            net[0].weight.untyped_storage().nbytes() == 4
            and net[0].weight.shape == CODES.codes.shape
        )
        assert torch.equal(net(X), expected(X))
        assert bool(net[0].weight.isnan().all())
    assert torch.equal(net[0].weight, CODES.dequantize()) and torch.equal(net(X), expected(X))
    assert weights.codes == {"0": CODES}


def test_a_weight_is_shown_where_somebody_looks_at_it(net: nn.Module) -> None:
    weights = coded(net)
    with weights.hidden():
        weights.set("0", CODES)
        with weights.shown("0"):
            assert torch.equal(net[0].weight, CODES.dequantize())
        assert bool(net[0].weight.isnan().all())
        weights.keep_shown("0")
        net(X)
        assert torch.equal(net[0].weight, CODES.dequantize())


def test_codes_that_are_set_again_replace_the_first(net: nn.Module) -> None:
    weights, coarse = coded(net), quantize_uniform(network()[0].weight, 2)
    with weights.hidden():
        weights.set("0", CODES)
        weights.keep_shown("0")
        weights.set("0", coarse)
        assert bool(net[0].weight.isnan().all())
    assert torch.equal(net[0].weight, coarse.dequantize())


def test_nothing_is_hidden_without_the_context_or_for_those_who_read_weights_themselves(
    net: nn.Module,
) -> None:
    weights = coded(net)
    weights.set("0", CODES)
    assert torch.equal(net[0].weight, CODES.dequantize())
    with weights.hidden(False):
        weights.set("0", CODES)
        assert torch.equal(net[0].weight, CODES.dequantize())


class _Twice(nn.Module):
    """A weight of two modules, and one that the graph reads itself."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.read = (nn.Conv2d(3, 3, 1, bias=False) for _ in range(3))
        self.two.weight = self.one.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(self.one(x)) + F.conv2d(x, self.read.weight)


@pytest.mark.parametrize("name", ["one", "two", "read"])
def test_a_weight_that_others_read_stays(name: str) -> None:
    net = checked_copy(_Twice()).requires_grad_(False)
    weights, codes = coded(net), quantize_uniform(net.get_parameter(f"{name}.weight"), 4)
    with weights.hidden():
        weights.set(name, codes)
        assert torch.equal(net.get_parameter(f"{name}.weight"), codes.dequantize())
        assert bool(net(X).isfinite().all())
