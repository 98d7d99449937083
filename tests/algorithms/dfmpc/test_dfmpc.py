"""DF-MPC against the formulas written out, and on networks where it has to be exact."""

import pytest
import torch
from torch import nn

from subpc.algorithms.dfmpc.choose_pairs import choose_pairs
from subpc.algorithms.dfmpc.compress import compress_dfmpc
from subpc.algorithms.dfmpc.config import DfmpcConfig
from subpc.algorithms.dfmpc.scalar_compensation import solve_scalars
from subpc.algorithms.network.pairing import find_pairs
from subpc.errors import ConfigError, ModelFileError
from subpc.frontend.architectures.build import build_arch
from tests.algorithms.two_convs import network


def problem() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    x, new, y, new_y = (
        torch.randn(*s, generator=generator, dtype=torch.float64)
        for s in ((5, 9), (5, 9), (5,), (5,))
    )
    return x, y, x + 0.3 * new, y + 0.3 * new_y


def test_the_solve_is_equation_27_channel_by_channel() -> None:
    x, y, new_x, new_y = problem()
    found = solve_scalars(x, y, new_x, new_y, lambda1=0.5, lambda2=0.01, clamp=False)
    for j in range(5):
        column, new_column, one = (
            x[j][:, None],
            new_x[j][:, None],
            torch.eye(1, dtype=torch.float64),
        )
        inverse = torch.linalg.inv(
            new_column.T @ new_column + 0.5 * new_y[j] ** 2 * one + 0.01 * one
        )
        expected = inverse @ (new_column.T @ column + 0.5 * new_y[j] * y[j] * one)
        torch.testing.assert_close(found[j], expected[0, 0])


def test_the_solve_is_the_minimum_of_the_loss() -> None:
    x, y, new_x, new_y = problem()

    def loss(c: torch.Tensor) -> torch.Tensor:
        return ((c[:, None] * new_x - x) ** 2).sum(1) + 0.5 * (c * new_y - y) ** 2 + 0.01 * c**2

    best = solve_scalars(x, y, new_x, new_y, lambda1=0.5, lambda2=0.01, clamp=False)
    assert bool((loss(best) < loss(best + 1e-3)).all())
    assert bool((loss(best) < loss(best - 1e-3)).all())


def test_unchanged_weights_have_the_coefficient_one_and_dead_channels_too() -> None:
    x, y, _, _ = problem()
    x[3], y[3] = 0, 0
    torch.testing.assert_close(
        solve_scalars(x, y, x, y, lambda1=0.5, lambda2=0, clamp=True), torch.ones(5).double()
    )


def test_a_coefficient_below_zero_is_clamped() -> None:
    x, y, _, _ = problem()
    assert not solve_scalars(x, y, -x, -y, lambda1=0.5, lambda2=0, clamp=True).any()
    assert bool((solve_scalars(x, y, -x, -y, lambda1=0.5, lambda2=0, clamp=False) < 0).all())


def test_weights_that_are_ternary_already_change_nothing() -> None:
    net = network()
    with torch.no_grad():
        net[0].weight.copy_(torch.randint(-1, 2, net[0].weight.shape) * 0.5)
        net[3].weight.copy_(
            (torch.randint(0, 256, net[3].weight.shape) * 2 / 255 - 1).index_fill(
                0, torch.tensor([0]), 1
            )
        )
    small, codes, _ = compress_dfmpc(net, DfmpcConfig.paper(high_bits=8))
    x = torch.randn(2, 3, 8, 8)
    assert codes["0"].has_zero
    torch.testing.assert_close(small(x), net(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("resnet18", "layer1.0.conv1", "layer1.0.conv2"),
        ("resnet50", "layer1.0.conv2", "layer1.0.conv3"),
    ],
)
def test_the_low_layer_is_the_one_of_figure_2(name: str, low: str, high: str) -> None:
    model = build_arch(name)
    first = choose_pairs(find_pairs(model).pairs, dict(model.named_modules()))[0]
    assert (first.first, first.second) == (low, high)


def test_a_chain_alternates() -> None:
    model = build_arch("vgg16_bn")
    chosen = choose_pairs(find_pairs(model).pairs, dict(model.named_modules()))
    assert [pair.first for pair in chosen[:3]] == ["features.0", "features.7", "features.14"]
    assert len({name for pair in chosen for name in (pair.first, pair.second)}) == 2 * len(chosen)


def test_nan_statistics_are_refused_by_name() -> None:
    net = network()
    net[1].running_var[0] = float("nan")
    with pytest.raises(ModelFileError, match=r"1\.running_var has values that are not finite"):
        compress_dfmpc(net, DfmpcConfig())


@pytest.mark.parametrize("change", ["half", "train", "gamma"])
def test_other_states_of_a_network_give_finite_outputs(change: str) -> None:
    net = network()
    if change == "half":
        net = net.half()
    if change == "train":
        net = net.train()
    if change == "gamma":
        with torch.no_grad():
            net[1].weight[::2] = 0
    small, _, _ = compress_dfmpc(net, DfmpcConfig())
    assert not small.training
    assert bool(torch.isfinite(small(torch.randn(1, 3, 8, 8))).all())


def test_without_batch_norm_every_layer_is_quantized_to_the_high_width() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1))
    _, codes, report = compress_dfmpc(net, DfmpcConfig())
    assert {name: layer.bits for name, layer in codes.items()} == {"0": 6, "2": 6}
    assert report.layers[0].reason == "no batch norm alone behind it"


@pytest.mark.parametrize(
    "wrong",
    [
        {"low_bits": 1},
        {"high_bits": 9},
        {"lambda1": -1},
        {"recalibration": "x"},
        {"compensation": "x"},
        {"clamp": 1},
    ],
)
def test_settings_outside_their_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="accepted"):
        DfmpcConfig(**wrong)  # type: ignore[arg-type]


def test_settings_go_through_json_and_unknown_keys_are_refused() -> None:
    config = DfmpcConfig(low_bits=3, skip=("fc",))
    assert DfmpcConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ConfigError, match=r"unknown keys .'speed'"):
        DfmpcConfig.from_dict({"speed": 1})


def test_two_widths_where_no_layer_can_have_the_low_one_say_so() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1)).eval()
    paper = DfmpcConfig.paper(low_bits=4, high_bits=8)
    assert compress_dfmpc(net, paper)[2].notes == (
        "no layer got 4 bits, all have 8: no batch norm alone behind it, and the like",
    )
    assert not compress_dfmpc(net, DfmpcConfig.paper(low_bits=8, high_bits=8))[2].notes
    assert not compress_dfmpc(network(), paper)[2].notes
