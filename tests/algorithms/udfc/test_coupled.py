"""Channels that are coupled through depthwise filters, gates, groups, joins and sums go together,
and the layers that read them make up for it."""

import pytest
import torch
from torch import nn

from subpc.algorithms.layer_fit.fit_layer import problem_of
from subpc.algorithms.layer_fit.least_squares import Problem, eliminate
from subpc.algorithms.network.channels import fit_widths
from subpc.algorithms.statistics.moments import Moments
from subpc.algorithms.udfc.compress import compress_udfc
from subpc.algorithms.udfc.config import UdfcConfig
from subpc.algorithms.udfc.eliminate_together import eliminate_together, readings_of
from subpc.errors import ConfigError
from tests.algorithms.coupled_nets import NETS, made

# Layers whose channels go in each kind, with `all` where one block's are not all of them.
REMOVED = {
    "depthwise": {"expand.0", "depthwise.0"},
    "depthwise, two filters each": {"expand.0", "depthwise.0"},
    "gate of convolutions": {"expand.0", "depthwise.0", "gate.expand"},
    "gate of linear layers": {"expand.0", "depthwise.0", "gate.expand"},
    "grouped": {"stem.0", "blocks.0.0", "blocks.1.0"},
    "joined": {"left.0", "right.0"},
    "stream": {"inner.0.0.0", "inner.1.0.0"},
}
ALL = {"joined": {"stem.0", "dense.0", "grown.0"}, "stream": {"stem.0"}}


def images() -> torch.Tensor:
    return torch.randn(32, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("channels", ["inside", "all"])
@pytest.mark.parametrize("kind", NETS)
def test_dead_channels_go_without_a_trace(kind: str, channels: str) -> None:
    net = made(kind, dead=True)
    config = UdfcConfig(ratio=0.25, bits=None, ridge=1e-9, channels=channels)
    small, _, report = compress_udfc(net, config, images=images())
    narrower = {layer.name for layer in report.layers if layer.kept < layer.filters}
    assert REMOVED[kind] <= narrower
    assert (ALL.get(kind, set()) <= narrower) == (channels == "all" or kind not in ALL)
    torch.testing.assert_close(small(images()), net(images()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", NETS)
def test_half_of_the_channels_leaves_a_network_that_runs_and_is_built_again_from_its_state(
    kind: str,
) -> None:
    net = made(kind)
    small, codes, report = compress_udfc(
        net, UdfcConfig(ratio=0.5, bits=6, channels="all"), images=images()
    )
    again = NETS[kind]().eval()
    fit_widths(again, small.state_dict())
    again.load_state_dict(small.state_dict())
    torch.testing.assert_close(again(images()), small(images()))
    assert set(codes) == {layer.name for layer in report.layers}
    deviation = float((small(images()) - net(images())).norm() / net(images()).norm())
    assert deviation < 0.5


def problem(draw: torch.Generator, channels: int, taps: int = 1) -> Problem:
    layer = nn.Conv2d(channels, 5, (1, taps))
    with torch.no_grad():
        layer.weight.normal_(generator=draw)
    mixed = torch.randn(40, channels * taps, generator=draw, dtype=torch.float64)
    covariance = (mixed.T @ mixed / 40)[None]
    answers = layer.weight.detach().double().flatten(1)[None] @ covariance
    return problem_of(
        layer, Moments(covariance=covariance, answers=answers), ridge=1e-6, solve=False
    )


@pytest.mark.parametrize("taps", [1, 3])
def test_one_reader_is_optimal_brain_surgeon(taps: int) -> None:
    one = problem(torch.Generator().manual_seed(0), 12, taps)
    found = eliminate_together(readings_of(one, torch.arange(12)), torch.zeros(12), [5])
    assert torch.equal(found, eliminate(one, 12, 5, 5, 16)[0])


def test_two_readers_lose_what_costs_both_the_least() -> None:
    """Against all choices of two channels of six, solved anew in each reader."""
    draw = torch.Generator().manual_seed(3)
    both = [problem(draw, 6) for _ in range(2)]
    readings = [reading for one in both for reading in readings_of(one, torch.arange(6))]
    found = eliminate_together(readings, torch.zeros(6), [1])

    def loss(gone: int) -> float:
        left = torch.arange(6) != gone
        return sum(one.relative_error(_solved(one, left)) ** 2 for one in both)

    assert int((~found).nonzero()) == min(range(6), key=loss)


def _solved(one: Problem, left: torch.Tensor) -> torch.Tensor:
    best, curvature = one.best[0], one.curvature[0]
    result = torch.zeros_like(best)
    result[:, left] = best @ curvature[:, left] @ torch.linalg.inv(curvature[left][:, left])
    return result[None]


def test_each_part_loses_its_own_count() -> None:
    one = problem(torch.Generator().manual_seed(0), 12)
    parts = torch.arange(12) // 4
    found = eliminate_together(readings_of(one, torch.arange(12)), parts, [1, 2, 0])
    assert [int(found[parts == part].sum()) for part in range(3)] == [3, 2, 4]


def test_a_ratio_without_effect_says_so_with_its_reason() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Softmax(1), nn.Conv2d(8, 4, 1))
    report = compress_udfc(net.eval(), UdfcConfig(ratio=0.5), images=images())[2]
    assert report.notes == (
        "ratio 0.5 removed no channel: 2 reads it, not a convolution, and the like",
    )
    assert not compress_udfc(net, UdfcConfig(ratio=0.0), images=images())[2].notes


def test_layers_that_are_skipped_keep_their_channels_and_those_coupled_with_them() -> None:
    config = UdfcConfig(ratio=0.5, skip=("depthwise.0",))
    small = compress_udfc(made("depthwise"), config, images=images())[0]
    assert small.expand[0].out_channels == small.project[0].in_channels == 16


@pytest.mark.parametrize("settings", [{"statistics": "weights"}, {"inputs": "normal"}])
def test_streams_need_images(settings: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="channels all needs images"):
        UdfcConfig(channels="all", **settings)  # type: ignore[arg-type]
