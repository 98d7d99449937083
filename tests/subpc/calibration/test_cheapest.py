"""Which layers compute in bytes: the choice whose times and conversions add up to least."""

from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from torch import nn

from subpc.calibration.cheapest import Costs, cheapest, costs_of
from subpc.calibration.places import find_places
from subpc.passes.predicted_time import Times
from subpc.schedules.isa import AVX512_VNNI
from tests.subpc.calibration.float_network import rewritten


def chain(*times: tuple[float, float], between: float = 10.0) -> Costs:
    """Layers 0, 1, ... one after the other: (ns in floats, ns in bytes)."""
    names = [str(index) for index in range(len(times))]
    found = {n: Times(floats=f, integers=i) for n, (f, i) in zip(names, times, strict=True)}
    return Costs(times=found, between=dict.fromkeys(pairwise(names), between))


def total(costs: Costs, integers: set[str]) -> float:
    ns = sum(t.integers if name in integers else t.floats for name, t in costs.times.items())
    ns += sum(n for name, n in costs.alone.items() if name in integers)
    return ns + sum(n for (a, b), n in costs.between.items() if (a in integers) != (b in integers))


def test_a_slower_layer_between_faster_ones_does_not_convert_twice() -> None:
    assert cheapest(chain((50, 10), (10, 15), (50, 10))) == {"0", "1", "2"}


def test_a_faster_layer_between_slower_ones_does_not_convert_twice() -> None:
    assert cheapest(chain((10, 50), (25, 10), (10, 50))) == set()


def test_what_gains_more_than_conversions_is_converted() -> None:
    assert cheapest(chain((10, 50), (50, 10), (10, 50))) == {"1"}


def test_layers_that_have_to_stay_floats_do() -> None:
    assert cheapest(chain((90, 10), (90, 10), (90, 10)), ["1"]) == {"0", "2"}


def test_layers_that_only_paid_together_go_as_well() -> None:
    assert cheapest(chain((90, 10), (90, 10), (15, 10)), ["1"]) == {"0"}


def test_reading_what_is_always_floats_costs() -> None:
    costs = Costs(times={"0": Times(floats=20, integers=10)}, alone={"0": 15})
    assert cheapest(costs) == set()


@pytest.mark.parametrize("seed", range(8))
def test_no_other_choice_takes_less(seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = [str(index) for index in range(7)]
    costs = Costs(
        times={
            n: Times(floats=f, integers=i)
            for n, f, i in zip(names, *rng.random((2, 7)), strict=True)
        },
        between={pair: rng.random() / 3 for pair in combinations(names, 2) if rng.random() < 0.5},
        alone={n: rng.random() / 3 for n in names[::3]},
    )
    every = [set(c) for count in range(8) for c in combinations(names, count)]
    least = min(total(costs, choice) for choice in every)
    assert total(costs, cheapest(costs)) == pytest.approx(least)


class Parts(nn.Module):
    """Layers with a maximum, a sum, and planes turned round between them, which no kernel does."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c, self.d = (nn.Conv2d(n, 8, 1) for n in (3, 8, 8, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.max_pool2d(self.a(x), 2)
        z = self.c(self.b(y) + y)
        return self.d(torch.flip(z, (2,)))


def test_costs_lie_where_codes_would_be_converted() -> None:
    network = rewritten(Parts(), 1, 3, 8, 8)
    costs = costs_of(network.graph, find_places(network.graph), network.decisions, AVX512_VNNI)
    assert set(costs.times) == {"a", "b", "c", "d"}
    # The sum of b and y is computed by b itself; what is turned round is always floats.
    assert set(costs.between) == {("a", "b"), ("b", "c")}
    assert set(costs.alone) == {"d"}
