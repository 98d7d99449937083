"""Images are taken for calibration where they help, by the way that helps most."""

import pytest
import torch
from torch import nn

from subpc.calibration.best import WITHOUT, choose_calibration
from subpc.calibration.deviation import deviation
from subpc.calibration.interpret import Interpreter
from subpc.calibration.quantize import Settings, calibrate, quantize
from subpc.calibration.ranges import METHODS
from tests.subpc.calibration.float_network import rewritten

SHAPE = (1, 3, 12, 12)


def images(count: int) -> torch.Tensor:
    return torch.randn(count, *SHAPE[1:], generator=torch.Generator().manual_seed(1))


class Net(nn.Module):
    """Two convolutions with a norm that expects inputs of deviation 1."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.norm = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.last = nn.Conv2d(16, 8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.norm(self.first(x))))


def test_the_choice_deviates_least_on_the_samples_that_were_held_back() -> None:
    network, x = rewritten(Net(), *SHAPE), images(24)
    choice = choose_calibration(network, [x])
    assert set(choice.deviations) == {WITHOUT, *METHODS, "equalized"}
    assert choice.deviations[choice.way] == min(choice.deviations.values())
    # Written out: halves are every other sample.
    found = calibrate(network, x[::2], Settings(method="min-max")).rounded()
    expected = [Interpreter(network.module).run(x[1::2])]
    off = deviation(found, [(x[1::2],)], expected)
    assert choice.deviations["min-max"] == pytest.approx(off, rel=1e-4)


def test_the_winner_sees_all_samples() -> None:
    network, x = rewritten(Net(), *SHAPE), images(24)
    choice = choose_calibration(network, [x])
    assert choice.way in METHODS
    whole = quantize(network, x, Settings(method=choice.way))
    expected, found = (Interpreter(m).run(x)[0] for m in (whole, choice.calibrated.rounded()))
    assert torch.equal(expected, found)


def test_samples_that_mislead_are_not_taken() -> None:
    """Half of them are a hundred times larger than those that they are compared on: each way but
    the one without images cuts codes down to few."""
    network, x = rewritten(Net(), *SHAPE), images(24)
    x[::2] *= 100
    choice = choose_calibration(network, [x])
    assert choice.way == WITHOUT
    (with_none,) = Interpreter(quantize(network)).run(x[:4])
    assert torch.equal(Interpreter(choice.calibrated.rounded()).run(x[:4])[0], with_none)


def test_one_sample_is_enough() -> None:
    network, x = rewritten(Net(), *SHAPE), images(1)
    assert Interpreter(choose_calibration(network, [x]).calibrated.rounded()).run(x)[0].any()


def test_a_deviation_is_the_share_of_the_squares_and_infinite_beyond_numbers() -> None:
    network, x = rewritten(Net(), *SHAPE), images(4)
    expected = [Interpreter(network.module).run(x)]
    assert deviation(network.module, [(x,)], expected) == 0
    double = [[2 * y for y in expected[0]]]
    assert deviation(network.module, [(x,)], double) == pytest.approx(0.25)
    beyond = [[y * torch.inf for y in expected[0]]]
    assert deviation(network.module, [(x,)], beyond) == float("inf")
