"""UDFC against the formulas written out, and on networks where it has to be exact."""

import pytest
import torch

from subpc.algorithms.dfmpc.compress import compress_dfmpc
from subpc.algorithms.dfmpc.config import DfmpcConfig
from subpc.algorithms.udfc.coefficients import quantization_scale, solve_coefficients
from subpc.algorithms.udfc.compress import compress_udfc
from subpc.algorithms.udfc.config import UdfcConfig
from subpc.errors import ConfigError, ModelFileError
from subpc.frontend.architectures.build import build_arch
from tests.algorithms.two_convs import network


def test_the_solve_is_the_papers_closed_form() -> None:
    generator = torch.Generator().manual_seed(0)
    w, g, k = (
        torch.randn(*s, generator=generator, dtype=torch.float64) for s in ((6, 20), (6,), (6,))
    )
    kept = torch.tensor([True, True, False, True, False, True])
    found = solve_coefficients(w, g, k, kept, alpha1=0.3, ridge=0)
    for column, j in enumerate((2, 4)):
        q, p = (g[kept, None] * w[kept] / g[j]).T, k[kept]
        expected = torch.linalg.solve(
            q.T @ q + 0.3 * torch.outer(p, p), q.T @ w[j] + 0.3 * p * k[j]
        )
        torch.testing.assert_close(found[:, column], expected)


def test_more_channels_than_values_in_a_filter_still_solves() -> None:
    w = torch.randn(40, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    kept = torch.arange(40) < 30
    found = solve_coefficients(
        w, torch.ones(40).double(), torch.zeros(40).double(), kept, alpha1=0.01, ridge=1e-6
    )
    torch.testing.assert_close(found.T @ w[kept], w[~kept], rtol=1e-3, atol=1e-3)


def test_the_quantization_scale_is_the_minimum_of_its_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    w, wq, g, k = (
        torch.randn(*s, generator=generator, dtype=torch.float64)
        for s in ((5, 9), (5, 9), (5,), (5,))
    )
    wq = w + 0.1 * wq

    def loss(s: torch.Tensor) -> torch.Tensor:
        return ((g[:, None] * (w - s[:, None] * wq)) ** 2).sum(1) + 0.008 * (k - s * k) ** 2

    best = quantization_scale(w, wq, g, k, 0.008)
    assert bool((loss(best) < loss(best + 1e-3)).all())
    assert bool((loss(best) < loss(best - 1e-3)).all())
    torch.testing.assert_close(quantization_scale(w, w, g, k, 0.008), torch.ones(5).double())


def test_where_nothing_is_removed_weights_are_rounded_as_dfmpc_rounds_them() -> None:
    net, images = network(), torch.randn(16, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    _, codes, _ = compress_udfc(net, UdfcConfig(ratio=0.0, bits=6), images=images)
    _, expected, _ = compress_dfmpc(net, DfmpcConfig(low_bits=6, high_bits=6), images=images)
    assert codes.keys() == expected.keys()
    for name, code in codes.items():
        assert torch.equal(code.codes, expected[name].codes)
        assert torch.equal(code.scale, expected[name].scale)


@pytest.mark.parametrize("method", ["udfc", "merge"])
def test_a_channel_that_repeats_another_goes_without_a_trace(method: str) -> None:
    net = network()
    with torch.no_grad():
        net[0].weight[5] = 0.1 * net[0].weight[2]
        net[1].running_mean[5], net[1].running_var[5] = (
            0.1 * net[1].running_mean[2],
            net[1].running_var[2],
        )
        net[1].weight[5], net[1].bias[5] = net[1].weight[2], 0.1 * net[1].bias[2]
    small, _, report = compress_udfc(
        net,
        UdfcConfig(
            ratio=0.125, bits=None, ridge=1e-12, method=method, statistics="weights", criterion="l2"
        ),
    )
    x = torch.randn(2, 3, 8, 8)
    assert small[0].weight.shape[0] == 7
    assert report.layers[0].error_after < 1e-5
    torch.testing.assert_close(small(x), net(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet18", "vgg16_bn", "densenet121", "mobilenet_v2"])
def test_removing_dead_channels_changes_no_output(name: str) -> None:
    torch.manual_seed(0)
    model = build_arch(name).eval()
    from subpc.algorithms.network.pairing import find_pairs

    for pair in find_pairs(model).pairs:
        conv, norm = model.get_submodule(pair.first), model.get_submodule(pair.norm)
        with torch.no_grad():
            conv.weight[::4] = 0
            norm.running_mean[::4] = 0
    x = torch.randn(1, 3, 64, 64)
    small, _, _ = compress_udfc(model, UdfcConfig.paper(ratio=0.25, bits=None, criterion="l2"))
    torch.testing.assert_close(small(x), model(x), rtol=1e-5, atol=1e-5)


def test_every_layer_gets_its_bits_and_the_file_gets_smaller() -> None:
    net = network()
    small, codes, report = compress_udfc(net, UdfcConfig(ratio=0.5, bits=6))
    assert [(layer.kept, layer.bits) for layer in report.layers] == [(4, 6), (6, 6)]
    torch.testing.assert_close(small[0].weight, codes["0"].dequantize())
    assert report.bytes < sum(t.numel() * 4 for t in net.state_dict().values()) / 3


def test_gamma_of_zero_gives_no_division() -> None:
    net = network()
    with torch.no_grad():
        net[1].weight[::2] = 0
    small, _, _ = compress_udfc(net, UdfcConfig(ratio=0.5, bits=4))
    assert bool(torch.isfinite(small(torch.randn(1, 3, 8, 8))).all())


def test_nan_statistics_are_refused_by_name() -> None:
    net = network()
    net[1].running_var[0] = float("nan")
    with pytest.raises(ModelFileError, match=r"1\.running_var has values that are not finite"):
        compress_udfc(net, UdfcConfig())


@pytest.mark.parametrize(
    "wrong",
    [
        {"ratio": 1.0},
        {"ratio": -0.1},
        {"bits": 1},
        {"criterion": "l3"},
        {"method": "magic"},
        {"alpha1": -1},
    ],
)
def test_settings_outside_their_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="accepted"):
        UdfcConfig(**wrong)  # type: ignore[arg-type]


def test_settings_go_through_json_and_unknown_keys_are_refused() -> None:
    config = UdfcConfig(ratio=0.2, skip=("fc",))
    assert UdfcConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ConfigError, match=r"unknown keys .'speed'"):
        UdfcConfig.from_dict({"speed": 1})


def test_a_ratio_that_leaves_no_channel_is_refused() -> None:
    with pytest.raises(ConfigError, match="leaves no channel of 8"):
        compress_udfc(network(), UdfcConfig(ratio=0.99))
