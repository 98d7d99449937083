"""Fixtures for the tuner."""

from collections.abc import Iterator

import pytest

from subpc.machine.target import parse_target
from subpc.tuning.build_candidates import Builder
from tests.subpc.tuning.schedules import NATIVE, network


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builder]:
    """Compiles candidates of the small network, each kernel once for all tests of a file."""
    made = Builder(network(), parse_target(NATIVE), tmp_path_factory.mktemp("build"), 1)
    yield made
    made.close()
