"""1xN pruning without data against its formulas written out, and on networks where it has to be
exact."""

import itertools

import pytest
import torch
from torch import nn

from subpc.algorithms.blocks.compress import compress_blocks
from subpc.algorithms.blocks.config import BlockConfig
from subpc.algorithms.images.random_images import random_shapes
from subpc.algorithms.layer_fit.least_squares import Problem, eliminate, layer_problem, solve
from subpc.algorithms.statistics.moments import Moments
from subpc.errors import ConfigError, ModelFileError
from subpc.frontend.architectures.build import build_arch
from tests.algorithms.two_convs import network


def problem(n: int = 4, channels: int = 5, taps: int = 3) -> Problem:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(200, channels * taps, generator=draw, dtype=torch.float64)
    x = x @ torch.randn(channels * taps, channels * taps, generator=draw, dtype=torch.float64)
    best = torch.randn(2 * n, channels * taps, generator=draw, dtype=torch.float64)
    return Problem(best=best[None], curvature=(x.T @ x / 200)[None])


@torch.no_grad()
def settle(net: nn.Module, x: torch.Tensor) -> nn.Module:
    """Give every batch norm the statistics of the images x."""
    for norm in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.momentum = None
        norm.reset_running_stats()
    net.train()(x)
    return net.eval()


def quick(**settings: object) -> BlockConfig:
    return BlockConfig(**{"n": 4, **settings})  # type: ignore[arg-type]


def layer(weight: torch.Tensor) -> nn.Conv2d:
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2:], bias=False)
    conv.weight.data.copy_(weight)
    return conv


def moments(before: torch.Tensor, now: torch.Tensor, weight: torch.Tensor) -> Moments:
    before, now = before - before.mean(0), now - now.mean(0)
    answers = before @ weight.flatten(1).double().T
    return Moments(
        covariance=(now.T @ now / len(now))[None], answers=(answers.T @ now / len(now))[None]
    )


def test_the_solve_is_the_least_squares_of_the_kept_columns() -> None:
    draw = torch.Generator().manual_seed(0)
    before, now = (torch.randn(300, 12, generator=draw, dtype=torch.float64) for _ in range(2))
    now = before + 0.3 * now
    weight = torch.randn(4, 4, 1, 3, generator=draw)
    mask = torch.tensor([[True, False, True, True]])
    solved = solve(layer_problem(layer(weight), moments(before, now, weight), 1e-12), mask, 4)
    kept = [c for c in range(12) if c // 3 != 1]
    target = (before - before.mean(0)) @ weight.double().flatten(1).T
    expected = torch.linalg.lstsq((now - now.mean(0))[:, kept], target).solution.T
    torch.testing.assert_close(solved[:, kept], expected, rtol=1e-6, atol=1e-6)
    assert not solved[:, 3:6].any()


def test_without_a_change_before_it_the_best_weights_are_the_old_ones() -> None:
    x = torch.randn(300, 12, dtype=torch.float64)
    weight = torch.randn(4, 4, 1, 3)
    torch.testing.assert_close(
        layer_problem(layer(weight), moments(x, x, weight), 0.1).best[0], weight.double().flatten(1)
    )


def test_the_cost_of_a_block_is_the_loss_after_solving_the_others() -> None:
    given = problem()
    mask = eliminate(given, 5, 4, 1, 1)
    for group in range(2):
        losses = []
        for gone in range(5):
            trial = torch.ones(2, 5, dtype=torch.bool)
            trial[group, gone] = False
            lost = (solve(given, trial, 4) - given.best[0])[4 * group : 4 * group + 4]
            losses.append(float((lost @ given.curvature[0] * lost).sum()))
        assert (~mask[group]).nonzero().tolist() == [[min(range(5), key=losses.__getitem__)]]


def test_block_by_block_finds_nearly_the_best_of_all_choices() -> None:
    given = problem()
    found = given.relative_error(solve(given, eliminate(given, 5, 4, 2, 2), 4)[None])
    choices = list(itertools.combinations(range(5), 2))
    every = []
    for one, other in itertools.product(choices, choices):
        trial = torch.ones(2, 5, dtype=torch.bool)
        trial[0, list(one)], trial[1, list(other)] = False, False
        every.append(given.relative_error(solve(given, trial, 4)[None]))
    assert sorted(every).index(min(every, key=lambda e: abs(e - found))) < len(every) // 10


def test_a_channel_that_repeats_another_goes_without_a_trace() -> None:
    net = network(filters=8)
    with torch.no_grad():
        for tensor in (
            net[0].weight,
            net[1].weight,
            net[1].bias,
            net[1].running_mean,
            net[1].running_var,
        ):
            tensor[4:] = tensor[:4]
    settle(net, random_shapes(16, 3, 12, seed=0))
    pruned, _, report = compress_blocks(net, quick(sparsity=0.5, rounds=4, ridge=1e-7))
    x = torch.randn(2, 3, 12, 12)
    assert report.layers[1].error_after < 1e-2 < report.layers[1].error_before
    torch.testing.assert_close(pruned(x), net(x), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("compensation", ["none", "weights", "batch_norm", "full"])
@pytest.mark.parametrize("criterion", ["l1", "error"])
def test_each_group_keeps_the_same_number_of_input_channels(
    criterion: str, compensation: str
) -> None:
    net = network(filters=8)
    pruned, codes, report = compress_blocks(
        net, quick(sparsity=0.3, criterion=criterion, compensation=compensation)
    )
    live = pruned[3].weight.view(2, 4, 8, 9).abs().sum((1, 3)) > 0
    assert live.sum(1).tolist() == [6, 6]
    assert codes == {}
    assert report.layers[1].sparsity == 0.25
    assert torch.equal(pruned[0].weight, net[0].weight)


@torch.no_grad()
def test_full_compensation_on_images_comes_nearer_than_magnitude_alone() -> None:
    torch.manual_seed(0)
    x = random_shapes(32, 3, 24, seed=1)
    net = settle(build_arch("subpc:resnet20", in_channels=3), x)
    plain, _, _ = compress_blocks(net, quick(criterion="l1", compensation="none"))
    full, _, _ = compress_blocks(net, quick(), images=x)
    assert float((full(x) - net(x)).norm()) < 0.5 * float((plain(x) - net(x)).norm())


def test_sparsity_of_zero_changes_nothing() -> None:
    net = network(filters=8)
    pruned, _, report = compress_blocks(net, quick(sparsity=0))
    assert all(
        torch.equal(a, b)
        for a, b in zip(net.state_dict().values(), pruned.state_dict().values(), strict=True)
    )
    assert report.inputs == "none"


@pytest.mark.parametrize(
    ("name", "reasons"),
    [
        ("mobilenet_v2", {"stem", "depthwise", "fully connected"}),
        ("densenet121", {"stem", "fully connected"}),
    ],
)
def test_layers_stay_dense_for_a_reason(name: str, reasons: set[str]) -> None:
    torch.manual_seed(0)
    _, _, report = compress_blocks(
        build_arch(name), BlockConfig(n=8, criterion="l1", compensation="none")
    )
    assert {layer.reason for layer in report.layers if layer.reason} == reasons
    assert all((layer.sparsity > 0) == (not layer.reason) for layer in report.layers)


def test_filters_that_do_not_divide_and_shared_weights_stay_dense() -> None:
    net = nn.Sequential(*(nn.Conv2d(8, 8, 3, padding=1) for _ in range(4)), nn.Conv2d(8, 6, 1))
    net[3].weight = net[2].weight
    _, _, report = compress_blocks(net, quick())
    assert [layer.reason for layer in report.layers] == [
        "stem",
        "",
        "the layer, or its weight, is used more than once",
        "the layer, or its weight, is used more than once",
        "6 filters, not divisible by 4",
    ]


def test_nan_statistics_are_refused_by_name() -> None:
    net = network(filters=8)
    net[1].running_var[0] = float("nan")
    with pytest.raises(ModelFileError, match=r"1\.running_var has values that are not finite"):
        compress_blocks(net, quick())


@pytest.mark.parametrize(
    "wrong",
    [
        {"n": 5},
        {"n": True},
        {"sparsity": 1.0},
        {"criterion": "l3"},
        {"compensation": "all"},
        {"ridge": 0},
        {"keep_dense": "a"},
    ],
)
def test_settings_outside_their_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="accepted"):
        BlockConfig(**wrong)  # type: ignore[arg-type]


def test_settings_go_through_json_and_unknown_keys_are_refused() -> None:
    config = BlockConfig(sparsity=0.2, keep_dense=("fc",))
    assert BlockConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ConfigError, match=r"unknown keys .'speed'"):
        BlockConfig.from_dict({"speed": 1})
