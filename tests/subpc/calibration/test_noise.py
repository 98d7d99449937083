"""The noise of roundings: how much it is, and whose."""

import math
from collections.abc import Collection

import pytest
import torch

from subpc.calibration.noise import BOUND, SAMPLES, Noise, decibels, quiet_layers
from subpc.calibration.quantize import calibrate
from tests.subpc.calibration.float_network import rewritten
from tests.subpc.small_net import SHAPE, small_net

SIGNAL = torch.tensor([1.0, -1.0] * 50)


@pytest.mark.parametrize(
    ("found", "expected", "wanted"),
    [
        (SIGNAL + 0.1, SIGNAL, 20.0),
        (SIGNAL + 7, SIGNAL + 7, math.inf),
        # An offset is no signal.
        (SIGNAL + 1000.1, SIGNAL + 1000, 20.0),
        (SIGNAL * math.nan, SIGNAL, -math.inf),
        (torch.ones(4), torch.zeros(4), -math.inf),
        # One class of ten is another.
        (torch.tensor([5] + [1] * 9), torch.tensor([1] * 10), 10.0),
    ],
)
def test_noise_is_told_in_decibels(
    found: torch.Tensor, expected: torch.Tensor, wanted: float
) -> None:
    assert decibels(found, expected) == pytest.approx(wanted, abs=0.05)


def test_a_network_is_measured_on_a_few_of_its_inputs() -> None:
    x = torch.randn(32, *SHAPE[1:], generator=torch.Generator().manual_seed(1))
    noise = Noise(calibrate(rewritten(small_net(), *SHAPE), x))
    assert noise.samples == SAMPLES
    every, one = ["stem", "block.conv1", "block.conv2", "fc"], noise.below_signal(["block.conv1"])
    assert noise.below_signal([]) == math.inf
    assert 20 < noise.below_signal(every) < one < math.inf


def test_batches_stay_whole() -> None:
    noise = Noise(calibrate(rewritten(small_net(), 6, *SHAPE[1:]), torch.randn(12, *SHAPE[1:])))
    assert noise.samples == 6


class Given(Noise):
    """Layers whose noise is known; calls are counted."""

    def __init__(self, powers: dict[str, float], more: float = 0.0) -> None:
        """more: what two layers together have more than the sum."""
        self.powers, self.more, self.calls = powers, more, 0

    def below_signal(self, layers: Collection[str]) -> float:
        self.calls += 1
        power = sum(self.powers[layer] for layer in layers) + self.more * (len(layers) > 1)
        return -10 * math.log10(power) if power else math.inf


def test_the_fewest_and_noisiest_layers_are_left_out() -> None:
    allowed = 10 ** (-BOUND / 10)
    noise = Given({**{str(i): allowed / 200 for i in range(100)}, "b": 2.0, "a": allowed / 1.5})
    alone: dict[str, float] = {}
    assert set(quiet_layers(noise, list(noise.powers), alone)) == {str(i) for i in range(100)}
    assert alone["b"] == pytest.approx(-10 * math.log10(2))
    assert noise.calls < 100 + 2 + 8


def test_noises_that_add_up_to_more_than_their_sum_are_found_out() -> None:
    allowed = 10 ** (-BOUND / 10)
    noise = Given({str(i): allowed * (i + 1) / 100 for i in range(10)}, more=allowed * 0.8)
    kept = quiet_layers(noise, list(noise.powers), {})
    assert kept
    assert Given.below_signal(noise, kept) >= BOUND
    worst = [name for name in noise.powers if name not in kept]
    assert noise.below_signal([*kept, min(worst, key=lambda name: noise.powers[name])]) < BOUND


def test_a_single_layer_that_is_too_noisy_is_left_out() -> None:
    assert quiet_layers(Given({"a": 1.0}), ["a"], {}) == []
