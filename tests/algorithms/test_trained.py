"""The three methods on a trained network: without data and with images, beside what they are meant
to beat."""

import pytest
import torch
from torch import nn

from subpc.algorithms.blocks.compress import compress_blocks
from subpc.algorithms.blocks.config import BlockConfig
from subpc.algorithms.dfmpc.compress import compress_dfmpc
from subpc.algorithms.dfmpc.config import DfmpcConfig
from subpc.algorithms.udfc.compress import compress_udfc
from subpc.algorithms.udfc.config import UdfcConfig
from tests.algorithms.trained import accuracy, digits, trained


def images(given: bool) -> torch.Tensor | None:
    return digits()[0][:400] if given else None


def test_the_float_network_is_trained() -> None:
    assert accuracy(trained()) > 95


RANDOM = "none (196 random ones of 64x64)"


KINDS = [(False, "random", RANDOM), (False, "normal", "none"), (True, "random", "given ones")]


@pytest.mark.parametrize(("given", "inputs", "told"), KINDS)
def test_ternary_layers_cost_little_where_rounding_alone_costs_a_third(
    given: bool, inputs: str, told: str
) -> None:
    small, codes, report = compress_dfmpc(
        trained(), DfmpcConfig(inputs=inputs), images=images(given)
    )
    naive, _, _ = compress_dfmpc(
        trained(), DfmpcConfig.paper(recalibration="none", compensation="none")
    )
    assert accuracy(small) > accuracy(trained()) - 4
    assert accuracy(naive) < accuracy(small) - 15
    assert sorted({code.bits for code in codes.values()}) == [2, 6]
    assert report.inputs == told


@pytest.mark.parametrize("given", [False, True])
def test_half_of_the_channels_go_with_little_loss(given: bool) -> None:
    small, _, _ = compress_udfc(trained(), UdfcConfig(ratio=0.5, bits=4), images=images(given))
    merged, _, _ = compress_udfc(trained(), UdfcConfig(ratio=0.5, bits=4, method="merge"))
    assert accuracy(small) > accuracy(trained()) - 5
    assert accuracy(merged) < accuracy(small) - 20
    assert sum(p.numel() for p in small.parameters()) < 0.7 * sum(
        p.numel() for p in trained().parameters()
    )


@pytest.mark.parametrize("given", [False, True])
def test_half_of_the_blocks_go_with_little_loss(given: bool) -> None:
    sparse, _, _ = compress_blocks(trained(), BlockConfig(n=4, sparsity=0.5), images=images(given))
    plain, _, _ = compress_blocks(
        trained(), BlockConfig(n=4, sparsity=0.5, criterion="l1", compensation="none")
    )
    assert accuracy(sparse) > accuracy(trained()) - 5
    assert accuracy(plain) < accuracy(sparse) - 20


@pytest.mark.parametrize("given", [False, True])
def test_where_nothing_is_taken_nothing_changes(given: bool) -> None:
    same, _, _ = compress_udfc(trained(), UdfcConfig(ratio=0.0, bits=None), images=images(given))
    x = digits()[0][:8]
    with torch.no_grad():
        torch.testing.assert_close(same(x), trained()(x), rtol=1e-3, atol=1e-3)


def test_the_network_that_is_given_is_not_changed() -> None:
    before = {key: value.clone() for key, value in trained().state_dict().items()}
    compress_udfc(trained(), UdfcConfig(ratio=0.5))
    compress_blocks(trained(), BlockConfig(n=4))
    assert all(torch.equal(value, before[key]) for key, value in trained().state_dict().items())


@pytest.mark.parametrize(
    "compress",
    [lambda n: compress_udfc(n, UdfcConfig()), lambda n: compress_dfmpc(n, DfmpcConfig())],
)
def test_layers_without_batch_norm_get_their_mean_back_through_the_offset(compress) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 4, 1),
    ).eval()
    small, _, _ = compress(net)
    x = torch.randn(64, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(
            small(x).mean((0, 2, 3)), net(x).mean((0, 2, 3)), atol=0.05, rtol=0
        )
