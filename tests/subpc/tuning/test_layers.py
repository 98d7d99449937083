"""What is compared when a schedule of one layer changes, and which layers are not changed at the
same time."""

import numpy as np
from torch import nn

from subpc.machine.target import parse_target
from subpc.schedules.search_space import search_space
from subpc.tuning.layers import TunedLayer, by_layer, find_layers, find_neighbours, next_round
from subpc.tuning.propose import Search
from tests.subpc.tuning.schedules import NATIVE, network

STEPS = ("a", "b", "b > relayout", "c", "d")
TIMES = np.array([[1.0, 10.0, 20.0, 100.0, 1000.0]])


def test_a_layer_is_measured_with_the_one_after_it() -> None:
    found = by_layer(TIMES, STEPS)
    assert {name: value[:, 0].tolist() for name, value in found.items()} == {
        "a": [1.0, 31.0],
        "b": [30.0, 130.0],
        "c": [100.0, 1100.0],
        "d": [1000.0, 1000.0],
    }


def test_joined_layers_are_measured_together_and_with_the_one_after_them() -> None:
    """Also where they run apart: that is what the joined ones are compared with."""
    found = by_layer(TIMES, STEPS, joined={"b", "c"})
    assert {name: value[:, 0].tolist() for name, value in found.items()} == {
        "a": [1.0, 1131.0],
        "b": [30.0, 1131.0],
        "c": [100.0, 1131.0],
        "d": [1000.0, 1000.0],
    }


def layers(names: str) -> list[TunedLayer]:
    """Layers with workloads of their own."""
    workload, made = next(iter(network().workloads.values())), []
    for number, name in enumerate(names):
        own = type(workload)(**{**workload.__dict__, "kept": number + 1})
        made.append(
            TunedLayer(
                workload=own, layers=(name,), default={}, search=Search([{}], 0), best={}, share=0.1
            )
        )
    return made


def rounds(found: list[TunedLayer]) -> str:
    return "".join(layer.layers[0] for layer in next_round(found, 9))


def test_neighbours_are_not_changed_at_once() -> None:
    found = layers("abcdefgh")
    find_neighbours(found, "abcdefgh", {})
    assert rounds(found) == "aceg"


def test_nor_are_layers_that_can_be_joined_and_the_one_after_them() -> None:
    found = layers("abcdefgh")
    find_neighbours(found, "abcdefgh", {"a": 2, "d": 1})
    assert rounds(found) == "aeg"


def test_every_family_of_a_layer_is_searched() -> None:
    """Also those that are never computed together with the next layer."""
    isa = parse_target(NATIVE).isa
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1)
    )
    found, _ = find_layers(network(model=model), isa)
    searched = [{choice["family"] for choice in layer.search.space} for layer in found]
    assert searched == [
        {choice["family"] for choice in search_space(layer.workload, isa)} for layer in found
    ]
    assert any(
        "joined" not in choice for layer in found for choice in search_space(layer.workload, isa)
    )
