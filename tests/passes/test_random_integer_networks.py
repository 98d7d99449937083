"""Random networks of codes through all passes and kernels: whatever is combined with whatever, the
numbers are those that the codes mean in float64."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.passes.integer_networks import run_network
from tests.passes.test_random_networks import Random

# A tie that goes the other way in one layer makes a few steps in the layers after it; a mistake
# makes many, or many of them. In steps of an output.
MOST, MEAN = 6.0, 0.1


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_random_networks_of_codes_compute_what_they_mean(data: st.DataObject) -> None:
    check(Random(data.draw))


@pytest.mark.slow
@seed(11)
@settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_many_random_networks_of_codes(data: st.DataObject) -> None:
    check(Random(data.draw))


def check(net: Random) -> None:
    """Every output is right to a few of its steps, most of it to less than one."""
    network = run_network(net, net.shape, where=None)
    for got, wanted in zip(network.got, network.wanted, strict=True):
        assert got.shape == wanted.shape
        step = max(wanted.max() - wanted.min(), 1e-3) / 255
        apart = np.abs(got - wanted) / step
        assert apart.max() <= MOST
        assert apart.mean() <= MEAN
