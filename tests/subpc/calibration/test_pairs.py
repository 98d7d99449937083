"""Codes of float weights for CPUs without vpdpbusd: two that meet fit 16 bits, and little is
lost."""

import pytest
import torch
from torch import Tensor, nn

from subpc.calibration.pairs import pair_codes
from subpc.calibration.weights import int8_codes
from subpc.compiler.precision import quantizer
from subpc.frontend.import_model import import_model
from subpc.images.prepare import Preparation
from subpc.passes.pipeline import lower_model, rewrite_model
from subpc.passes.program import WeightStore
from subpc.schedules.isa import AVX2, AVX512, AVX512_VNNI, VectorIsa
from subpc.schedules.quad_conv import QuadConv
from tests.passes.test_end_to_end import prune_blocks


def random_weight(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def error(weight: Tensor, codes: Tensor, scales: Tensor) -> float:
    return float((codes * scales.reshape(-1, 1, 1, 1) - weight).square().sum())


class Net(nn.Module):
    """The first layer of a network, a dense one, two with blocks of zeros, one of groups."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 32, 7, padding=3),
            nn.Conv2d(32, 48, 3, padding=1),
            nn.Conv2d(48, 64, 1),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.Conv2d(64, 64, 3, padding=1, groups=4),
        )
        for layer in self.layers:
            layer.weight.data = random_weight(*layer.weight.shape)
        prune_blocks(self.layers[2].weight, 16, 0.75)
        prune_blocks(self.layers[3].weight, 8, 0.5, uniform=False)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.relu(layer(x))
        return x


def steps_in_16_bits(isa: VectorIsa) -> list[int | None]:
    """Of each convolution of codes, in order."""
    (imported,) = import_model(Net().eval(), example_inputs=[torch.rand(1, 3, 9, 10)])
    quantize = quantizer("int8", None, Preparation(), [], None, isa)
    network = rewrite_model(imported, isa=isa, sparse="auto", quantize=quantize)
    program = lower_model(network, isa=isa, weights=WeightStore()).program
    kernels = [step.kernel for step in program.calls if isinstance(step.kernel, QuadConv)]
    assert [kernel.sparse for kernel in kernels] == [False, False, True, True, True]
    return [kernel.narrow for kernel in kernels]


@pytest.mark.parametrize("isa", [AVX512, AVX2], ids=["avx512", "avx2"])
def test_codes_that_meet_in_a_kernel_fit(isa: VectorIsa) -> None:
    assert 0 not in steps_in_16_bits(isa)


def test_vpdpbusd_takes_them_as_large_as_they_are() -> None:
    assert set(steps_in_16_bits(AVX512_VNNI)) == {None}


@pytest.mark.parametrize("shape", [(8, 64, 3, 3), (8, 9, 1, 1), (4, 3, 7, 7)])
def test_less_is_lost_than_with_codes_of_half_the_size(shape: tuple[int, ...]) -> None:
    weight = random_weight(*shape)
    codes, scales = pair_codes(weight)
    least = error(weight, *int8_codes(weight))
    assert 0.98 * least < error(weight, codes, scales) < 2 * least
    assert codes.abs().max() > 64


def test_without_large_pairs_hardly_anything_is_lost() -> None:
    weight = random_weight(6, 16, 3, 3) / 4
    weight[:, 0, 0, 0], weight[:, 1, 0, 0] = 4, 0
    assert error(weight, *pair_codes(weight)) < 1.02 * error(weight, *int8_codes(weight))


def test_filters_of_zeros_have_codes_of_zeros() -> None:
    codes, scales = pair_codes(torch.zeros(2, 5, 3, 3))
    assert not codes.any()
    assert (scales > 0).all()
