"""What quantization leaves of a network that is 1xN block-sparse already: its blocks."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from subpc.algorithms.dfmpc.compress import compress_dfmpc
from subpc.algorithms.dfmpc.config import DfmpcConfig
from subpc.algorithms.layer_fit.fit_layer import zero_pays
from subpc.algorithms.numerics.one_by_n import block_mask, expand, kept_blocks, magnitudes
from subpc.algorithms.numerics.quantizers import Quantized
from subpc.algorithms.udfc.compress import compress_udfc
from subpc.algorithms.udfc.config import UdfcConfig

IMAGES = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(5))


def pruned(n: int, *, dense: bool = False) -> nn.Sequential:
    """Two convolutions, half of the second one's blocks gone."""
    torch.manual_seed(3)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.BatchNorm2d(32),
    )
    if not dense:
        weight = net[3].weight
        with torch.no_grad():
            weight.mul_(expand(block_mask(magnitudes(weight, n), 8), n))
    net.train()
    net(IMAGES)
    return net.eval()


def by_dfmpc(net: nn.Module, bits: int) -> tuple[nn.Module, dict[str, Quantized]]:
    config = DfmpcConfig(low_bits=bits, high_bits=bits)
    return compress_dfmpc(net, config, images=IMAGES)[:2]


def by_udfc(net: nn.Module, bits: int) -> tuple[nn.Module, dict[str, Quantized]]:
    return compress_udfc(net, UdfcConfig(ratio=0.0, bits=bits), images=IMAGES)[:2]


@pytest.mark.parametrize("compress", [by_dfmpc, by_udfc])
@pytest.mark.parametrize(("n", "bits"), [(4, 3), (8, 4), (16, 6), (16, 8)])
def test_blocks_that_are_zero_stay_zero_and_the_others_do_not_become_it(
    compress: Callable[[nn.Module, int], tuple[nn.Module, dict[str, Quantized]]], n: int, bits: int
) -> None:
    net = pruned(n)
    small, codes = compress(net, bits)
    weight = small.get_parameter("3.weight").detach()
    before, after = magnitudes(net[3].weight.detach(), n) > 0, magnitudes(weight, n) > 0
    assert torch.equal(before, after)
    assert codes["3"].has_zero
    # What is left computes nearly the same, and not nothing.
    lost = ((small(IMAGES) - net(IMAGES)).norm() / net(IMAGES).norm()).detach()
    assert float(lost) < 2.0 ** (3 - bits)


def test_removing_channels_keeps_the_blocks_of_the_next_layer() -> None:
    net = pruned(16)
    small, *_ = compress_udfc(net, UdfcConfig(ratio=0.25, bits=8), images=IMAGES)
    found = kept_blocks(small.get_parameter("3.weight").detach())
    assert found is not None
    mask, n = found
    assert (mask.shape[1], n) == (12, 16)
    assert 0 < int(mask.sum()) < mask.numel()


@pytest.mark.parametrize("n", [4, 8, 16, 32])
def test_the_largest_block_that_describes_the_zeros_is_found(n: int) -> None:
    weight = torch.ones(64, 6, 3, 3)
    for group in range(64 // n):
        weight[group * n : group * n + n, group % 5] = 0
    found = kept_blocks(weight)
    assert found is not None
    mask, size = found
    assert size == n
    assert torch.equal(expand(mask, n).expand_as(weight), weight.bool())


def test_a_channel_that_no_filter_reads_is_one_group_of_all_filters() -> None:
    weight = torch.ones(10, 6)
    weight[:, 2] = 0
    found = kept_blocks(weight)
    assert found is not None
    assert (found[0].tolist(), found[1]) == ([[True, True, False, True, True, True]], 10)


def test_dense_weights_and_zeros_in_no_pattern_have_no_blocks() -> None:
    weight = torch.ones(32, 6, 3, 3)
    assert kept_blocks(weight) is None
    weight[3, 2] = 0
    assert kept_blocks(weight) is None


@pytest.mark.parametrize(("bits", "pays"), [(2, False), (4, False), (5, True), (8, True)])
def test_dense_layers_of_five_bits_and_more_have_a_level_for_zero(bits: int, pays: bool) -> None:
    assert zero_pays(nn.Conv2d(4, 4, 1), bits) is pays
    assert not zero_pays(nn.Conv2d(4, 4, 3, groups=4), bits)
    assert by_udfc(pruned(16, dense=True), bits)[1]["3"].has_zero is pays
