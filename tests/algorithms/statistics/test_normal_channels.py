"""Normal variables followed through functions, filters and sums, against samples and against
formulas written out."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

from subpc.algorithms.numerics.cholesky import steady_cholesky
from subpc.algorithms.numerics.hermite import covariance_behind, expand
from subpc.algorithms.statistics.filter_taps import fit_taps, make_taps
from subpc.algorithms.statistics.follow import run_side_by_side
from subpc.algorithms.statistics.normal_channels import PRECISION, Field, add, concatenated
from subpc.algorithms.statistics.normal_layer import LayerField
from subpc.algorithms.statistics.normal_run import run_fields
from subpc.errors import UnsupportedModelError


def covariance(size: int, seed: int = 0) -> torch.Tensor:
    root = torch.randn(size, size, generator=torch.Generator().manual_seed(seed))
    return root @ root.T / size + 0.1 * torch.eye(size)


def field(size: int, seed: int = 0) -> Field:
    both = covariance(2 * size, seed).to(PRECISION)
    means = torch.randn(2, size, generator=torch.Generator().manual_seed(seed + 1)).to(PRECISION)
    return Field(
        means=(means[0], means[1]),
        own=(both[:size, :size], both[size:, size:]),
        cross=both[:size, size:],
    )


@pytest.mark.parametrize("function", [torch.relu, F.relu6, F.silu, F.hardswish])
def test_covariances_behind_a_function_are_those_of_samples(function) -> None:  # type: ignore[no-untyped-def]
    first = field(3)
    both = torch.cat(
        [torch.cat([first.own[0], first.cross], 1), torch.cat([first.cross.T, first.own[1]], 1)]
    )
    draw = torch.Generator().manual_seed(0)
    samples = torch.randn(400_000, 6, generator=draw, dtype=PRECISION) @ torch.linalg.cholesky(
        both
    ).T + torch.cat(first.means)
    values = function(samples)
    behind = first.through(function)
    torch.testing.assert_close(torch.cat(behind.means), values.mean(0), rtol=0.02, atol=0.01)
    expected = torch.cov(values.T)
    torch.testing.assert_close(behind.own[0], expected[:3, :3], rtol=0.03, atol=0.01)
    torch.testing.assert_close(behind.cross, expected[:3, 3:], rtol=0.03, atol=0.01)


def test_the_same_channel_has_its_variance_as_covariance() -> None:
    series = expand(torch.relu, torch.tensor([0.3]), torch.tensor([2.0]))
    found = covariance_behind(series, series, torch.tensor([[2.0]]))
    z = torch.randn(1_000_000, generator=torch.Generator().manual_seed(0)) * math.sqrt(2) + 0.3
    torch.testing.assert_close(found[0, 0], z.relu().var(), rtol=0.01, atol=0)


def test_the_slope_is_the_share_above_zero_for_a_relu() -> None:
    series = expand(torch.relu, torch.tensor([0.5]), torch.tensor([1.0]))
    torch.testing.assert_close(
        series.slope[0], torch.special.ndtr(torch.tensor(0.5)), rtol=2e-3, atol=0
    )


def test_sums_and_joins_take_branches_as_independent() -> None:
    one, two = field(2, 0), field(2, 5)
    torch.testing.assert_close(add([one, two]).own[0], one.own[0] + two.own[0])
    joined = concatenated([one, two])
    torch.testing.assert_close(joined.own[1][:2, :2], one.own[1])
    assert not joined.own[1][:2, 2:].any()


def patch_moments(
    conv: nn.Conv2d, correlation: float, side: int, channels: torch.Tensor, mean: torch.Tensor
) -> torch.Tensor:
    """The covariance of all values under a filter, over every place of a plane with zeros around
    it, written out."""
    reach = conv.padding[0]
    offsets = [(a - reach, b - reach) for a in range(3) for b in range(3)]
    places = [(y, x) for y in range(side) for x in range(side)]

    def inside(y: int, x: int) -> float:
        return float(0 <= y < side and 0 <= x < side)

    second, first = (
        torch.zeros(len(mean) * 9, len(mean) * 9, dtype=PRECISION),
        torch.zeros(len(mean) * 9, dtype=PRECISION),
    )
    for y, x in places:
        there = torch.tensor([inside(y + a, x + b) for a, b in offsets], dtype=PRECISION)
        near = torch.tensor(
            [[correlation ** (abs(a - c) + abs(b - d)) for c, d in offsets] for a, b in offsets],
            dtype=PRECISION,
        )
        both = torch.outer(there, there)
        second += torch.kron(channels, near * both) + torch.kron(torch.outer(mean, mean), both)
        first += torch.kron(mean, there)
    return second / len(places) - torch.outer(first, first) / len(places) ** 2


@pytest.mark.parametrize("side", [1, 2, 5])
def test_values_under_a_filter_go_together_as_counted_out(side: int) -> None:
    conv, channels, mean = (
        nn.Conv2d(2, 3, 3, padding=1).to(PRECISION),
        covariance(2).to(PRECISION),
        torch.tensor([0.5, -1.0]).to(PRECISION),
    )
    taps = make_taps(conv, 0.4, side)
    expected = patch_moments(conv, 0.4, side, channels, mean)
    torch.testing.assert_close(taps.dense(channels, (mean, mean)), expected, rtol=1e-4, atol=1e-5)
    rows = conv.weight.detach().flatten(2)
    torch.testing.assert_close(
        taps.times(rows, channels, (mean, mean)), rows.flatten(1) @ expected, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(("side", "correlation"), [(1.0, 0.0), (4.0, 0.35), (14.0, 0.7)])
def test_side_and_correlation_follow_from_a_batch_norm(side: float, correlation: float) -> None:
    torch.manual_seed(0)
    conv, channels, mean = (
        nn.Conv2d(8, 24, 3, padding=1).to(PRECISION),
        covariance(8).to(PRECISION),
        torch.rand(8).to(PRECISION) + 0.5,
    )
    rows, taps = conv.weight.detach().flatten(2), make_taps(conv, correlation, side)
    variance = (taps.times(rows, channels, (mean, mean)) * rows.flatten(1)).sum(1)
    middle = (rows @ taps.inside) @ mean
    found, fitted = fit_taps(
        conv, rows.mT @ mean, rows.mT @ channels @ rows, (middle, 3 * variance)
    )
    torch.testing.assert_close(found.inside, taps.inside)
    assert side == 1 or fitted == correlation


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_layer_gives_what_its_moments_say(groups: int) -> None:
    torch.manual_seed(0)
    layer, other = (nn.Conv2d(4, 8, 3, padding=1, groups=groups) for _ in range(2))
    seen = LayerField(layer, field(4), None)
    moments, outputs = seen.moments(), seen.outputs(other)
    assert moments is not None
    for group in range(groups):
        part = slice(group * 8 // groups, (group + 1) * 8 // groups)
        new = other.weight.detach().flatten(1)[part].double()
        torch.testing.assert_close(
            outputs.cross[part, part].double(), moments.answers[group] @ new.T, rtol=1e-4, atol=1e-5
        )
        torch.testing.assert_close(
            outputs.own[1][part, part].double(),
            new @ moments.covariance[group] @ new.T,
            rtol=1e-4,
            atol=1e-5,
        )


def test_a_layer_gives_exactly_the_statistics_of_its_batch_norm() -> None:
    torch.manual_seed(0)
    layer, norm = nn.Conv2d(6, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4).eval()
    nn.init.normal_(norm.running_mean)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    seen = LayerField(layer, field(6), norm)
    outputs = seen.outputs(layer)
    torch.testing.assert_close(outputs.means[0].float(), norm.running_mean, rtol=0.05, atol=0.05)
    torch.testing.assert_close(
        outputs.own[0].diagonal().float(), norm.running_var, rtol=0.02, atol=0
    )
    moments, rows = seen.moments(), layer.weight.detach().flatten(1).double()
    assert moments is not None
    both = (outputs.cross.double(), moments.answers[0] @ rows.T)
    torch.testing.assert_close(*both, rtol=1e-3, atol=1e-4)


def test_an_unchanged_network_keeps_its_statistics() -> None:
    torch.manual_seed(0)
    nets = [
        nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.BatchNorm2d(4)
        ).eval()
        for _ in range(2)
    ]
    nets[1].load_state_dict(nets[0].state_dict())
    for images in (None, torch.randn(4, 3, 12, 12)):
        with torch.no_grad():
            run_side_by_side(
                fx.symbolic_trace(nets[0]).graph,
                (nets[0], nets[1]),
                images,
                lambda name, inputs: None,
                correct=True,
            )
        for key, value in nets[0].state_dict().items():
            torch.testing.assert_close(nets[1].state_dict()[key], value, rtol=1e-4, atol=1e-5)


class _Product(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """A step that normal variables are not followed through."""
        y = self.conv(x)
        return y * torch.sigmoid(y)


def test_a_step_that_is_not_known_is_named() -> None:
    net = _Product().requires_grad_(False)
    with pytest.raises(UnsupportedModelError, match=r"What mul does .* is not known"):
        run_fields(
            fx.symbolic_trace(net).graph, (net, net), lambda name, inputs: None, correct=True
        )


def test_a_matrix_that_is_singular_gets_what_it_takes() -> None:
    factor = steady_cholesky(torch.ones(2, 3, 3))
    torch.testing.assert_close(factor @ factor.mT, torch.ones(2, 3, 3), rtol=0, atol=0.1)
    good = covariance(4)
    torch.testing.assert_close(steady_cholesky(good), torch.linalg.cholesky(good))


@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize(
    "matrix", [torch.ones(3, 3), torch.tensor([[4.0, 1.0, 0.0], [1.0, 3.0, 0.5], [0.0, 0.5, 2.0]])]
)
def test_a_factor_in_the_memory_of_its_matrix_is_the_same(
    matrix: torch.Tensor, upper: bool
) -> None:
    place = matrix.clone().mT
    factor = steady_cholesky(place, upper=upper, again=lambda: matrix.clone().mT)
    assert torch.equal(factor, steady_cholesky(matrix, upper=upper))
    assert (factor.data_ptr() == place.data_ptr()) == (float(matrix[0, 0]) == 4)
