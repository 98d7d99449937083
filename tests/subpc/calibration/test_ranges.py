"""Statistics taken batch by batch, and quantizations that fit them."""

import numpy as np
import pytest
import torch

from subpc.calibration.ranges import METHODS, TensorStatistics, between
from subpc.errors import ConfigError
from subpc.schedules.quantization import Quantization


def statistics(*batches: torch.Tensor) -> TensorStatistics:
    found = TensorStatistics()
    for batch in batches:
        found.add(batch)
    return found


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def error(x: torch.Tensor, q: Quantization) -> float:
    values = x.numpy().astype("float64")
    return float(np.square(q.values(q.codes(values)) - values).mean())


def test_extremes_and_means_are_those_of_all_batches() -> None:
    x = normal(6, 4, 5, 5)
    found = statistics(*torch.split(x, 2))
    assert (found.low, found.high) == (float(x.min()), float(x.max()))
    assert torch.equal(found.channel_low, x.amin((0, 2, 3)))
    assert torch.equal(found.channel_high, x.amax((0, 2, 3)))
    assert torch.allclose(found.channel_mean, x.double().mean((0, 2, 3)))


@pytest.mark.parametrize("growth", [(1.0, 30.0, -0.1), (1.0, -0.1, -30.0), (0.01, 1000.0, -50.0)])
def test_the_histogram_grows_and_loses_nothing(growth: tuple[float, ...]) -> None:
    batches = [normal(1, 2, 40, seed=i) * scale for i, scale in enumerate(growth)]
    centres, counts = statistics(*batches).histogram()
    values = torch.cat(batches).reshape(-1)
    assert counts.sum() == values.numel()
    # Bins are at most twice as wide as those of one histogram of everything, and a value lies
    # within half a bin of its centre.
    width = 2 * float(values.max() - values.min()) / 1024
    assert np.abs(np.sort(np.repeat(centres, counts.astype(int))) - np.sort(values)).max() <= width


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    x = normal(1, 2, 3)
    x[0, 1, 2] = value
    with pytest.raises(ConfigError, match="not finite"):
        statistics(x)


def test_zero_is_a_code_and_both_ends_are_reached() -> None:
    for low, high in ((-1.0, 3.0), (0.5, 3.0), (-3.0, -0.5), (-1e-3, 50.0), (0.0, 6.0)):
        q = between(low, high)
        assert q.values(q.codes(np.zeros(1)))[0] == 0.0
        ends = np.array([min(low, 0.0), max(high, 0.0)])
        assert np.abs(q.values(q.codes(ends)) - ends).max() <= q.scale * 0.51


def test_what_is_never_negative_has_zero_point_zero() -> None:
    for method in METHODS.values():
        assert method(statistics(normal(4, 8, 50).relu())).zero_point == 0


@pytest.mark.parametrize("method", METHODS)
def test_a_tensor_of_zeros_gets_a_scale(method: str) -> None:
    q = METHODS[method](statistics(torch.zeros(2, 3, 4)))
    assert q.scale > 0
    assert q.zero_point == 0


@pytest.mark.parametrize("method", METHODS)
def test_the_smallest_and_largest_floats_have_finite_scales(method: str) -> None:
    for size in (1e-38, 1e37):
        q = METHODS[method](statistics(normal(2, 3, 40).clamp(-3, 3) * size))
        assert np.isfinite(np.float32(1) / np.float32(q.scale))


def test_min_max_reaches_all_values_and_percentile_leaves_the_rare_ones_out() -> None:
    x = normal(1, 4, 50_000)
    x[0, 0, 0] = 100.0
    everything, most = (METHODS[name](statistics(x)) for name in ("min-max", "percentile"))
    assert everything.values(np.array(255)) == pytest.approx(100.0, rel=0.01)
    assert most.values(np.array(255)) < 6


@pytest.mark.parametrize("tail", [1.0, 3.0])
def test_mean_squared_error_is_the_least_of_all_methods(tail: float) -> None:
    x = normal(1, 4, 20_000)
    x = x.sign() * x.abs() ** tail
    errors = {name: error(x, method(statistics(x))) for name, method in METHODS.items()}
    assert errors["mse"] <= 1.02 * min(errors.values())
    if tail > 1:
        assert errors["mse"] < 0.9 * errors["min-max"]


def test_tensors_with_one_quantization_are_counted_together() -> None:
    small, large = normal(1, 2, 5000), 10 * normal(1, 2, 5000, seed=1)
    merged = statistics(small).merge(statistics(large))
    whole = statistics(small, large)
    assert (merged.low, merged.high, merged.values) == (whole.low, whole.high, whole.values)
    assert METHODS["mse"](merged).scale == pytest.approx(METHODS["mse"](whole).scale, rel=0.05)
