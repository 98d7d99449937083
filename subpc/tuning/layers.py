"""What the tuner knows about each workload of a network: where it occurs, its share of the time,
its best schedule so far."""

import itertools
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from subpc.tuning.measure import Measured, Times
from subpc.tuning.propose import Search

if TYPE_CHECKING:
    from subpc.passes.pipeline import Rewritten
    from subpc.schedules.isa import VectorIsa
    from subpc.schedules.workload import Choice, ConvWorkload

# A workload counts as done when it has seen this many schedules, or all, and the last ones brought
# nothing.
MIN_TRIALS, PATIENCE = 12, 8


@dataclass
class TunedLayer:
    """One workload. layers: those that have it; share: of the network's time; best, ratio:
    schedule, and its time over the default's."""

    workload: "ConvWorkload"
    layers: tuple[str, ...]
    default: "Choice"
    search: Search
    best: "Choice"
    ratio: float = 1.0
    share: float = 0.0
    microseconds: float = 0.0
    trials: int = 0
    since_gain: int = 0
    exhausted: bool = False
    failures: int = 0
    neighbours: set[str] = field(default_factory=set)

    @property
    def done(self) -> bool:
        """Whether more trials promise little."""
        return self.exhausted or (
            self.search.measured >= MIN_TRIALS and self.since_gain >= PATIENCE
        )

    @property
    def tuned(self) -> bool:
        """Whether its best schedule is not the default."""
        return self.best != self.default


def find_layers(model: "Rewritten", isa: "VectorIsa") -> tuple[list[TunedLayer], dict[str, int]]:
    """The distinct workloads of a network, with their default schedules; how many of the next
    layers each layer can be joined with."""
    from subpc.passes.pipeline import lower_model
    from subpc.passes.program import WeightStore
    from subpc.schedules.families import families_for
    from subpc.schedules.search_space import search_space

    lowered = lower_model(model, isa=isa, weights=WeightStore())
    names: dict[str, list[str]] = {}
    for name, workload in lowered.workloads.items():
        names.setdefault(workload.key, []).append(name)
    spaces = {
        key: search_space(lowered.workloads[members[0]], isa) for key, members in names.items()
    }
    most = _most_joined(
        model, isa, {name: spaces[workload.key] for name, workload in lowered.workloads.items()}
    )
    layers = []
    for key, members in names.items():
        workload, default = lowered.workloads[members[0]], lowered.choices[members[0]]
        limit = {
            family: max(most[name].get(family, 0) for name in members)
            for family in families_for(workload, isa)
        }
        # Kernels by transforms are never joined, and have no such field.
        offered = [
            choice
            for choice in spaces[key]
            if int(choice.get("joined", 0)) <= limit[str(choice["family"])]
        ]
        search = Search(offered, seed=zlib.crc32(key.encode()))
        layers.append(
            TunedLayer(
                workload=workload,
                layers=tuple(members),
                default=default,
                search=search,
                best=default,
            )
        )
    return layers, {name: max(by_family.values(), default=0) for name, by_family in most.items()}


def _most_joined(
    model: "Rewritten", isa: "VectorIsa", spaces: "Mapping[str, Sequence[Choice]]"
) -> dict[str, dict[str, int]]:
    """How many of the next layers each layer can be joined with, by family: where all layers that
    have it are of this family."""
    from subpc.passes.join_steps import joinable
    from subpc.passes.pipeline import lower_model
    from subpc.passes.program import WeightStore

    most: dict[str, dict[str, int]] = {name: {} for name in spaces}
    for family in dict.fromkeys(choice["family"] for space in spaces.values() for choice in space):
        first = {
            name: next((choice for choice in space if choice["family"] == family), None)
            for name, space in spaces.items()
        }
        forced = {name: choice for name, choice in first.items() if choice is not None}
        runs = joinable(lower_model(model, isa=isa, weights=WeightStore(), choices=forced).program)
        for name in forced:
            most[name][str(family)] = runs.get(name, 0)
    return most


def choices_of(
    layers: Iterable[TunedLayer], instead: "Mapping[str, Choice] | None" = None
) -> "dict[str, Choice]":
    """Schedules by layer name; instead: other ones by workload key. Defaults are left to the
    compiler."""
    found: dict[str, Choice] = {}
    for layer in layers:
        choice = (instead or {}).get(layer.workload.key, layer.best)
        if choice != layer.default:
            found |= dict.fromkeys(layer.layers, choice)
    return found


def base_name(step: str) -> str:
    """The layer that a step belongs to: steps without weights are named after the layer before
    them."""
    return step.split(" > ")[0]


def by_layer(times: Times, steps: Sequence[str], joined: Collection[str] = ()) -> dict[str, Times]:
    """(runs, steps) nanoseconds -> (2, runs) for each layer: its own steps, and the window in which
    a schedule of it shows.

    That is the layer and the one that runs next: a schedule decides which core's cache holds the
    result, so the next layer pays for it.
    joined: layers that are computed along with the one before, here or in what this is compared
    with. Their window, and that of the layer that they are joined to, has all of these layers in
    it.
    """
    order = list(dict.fromkeys(map(base_name, steps)))
    own = [
        times[:, [i for i, step in enumerate(steps) if base_name(step) == name]].sum(axis=1)
        for name in order
    ]
    found = {}
    for number, name in enumerate(order):
        first, last = number, number + 1
        while order[first] in joined and first > 0:
            first -= 1
        while last < len(order) and order[last] in joined:
            last += 1
        found[name] = np.stack([own[number], np.sum(own[first : last + 1], axis=0)])
    return found


def side_by_side(
    times: tuple[Times, Times], libraries: tuple[Measured, Measured]
) -> tuple[dict[str, Times], dict[str, Times]]:
    """`by_layer` of runs of two libraries of a network, with the same windows in both."""
    joined = {name for library in libraries for name in library.joined}
    first, second = (
        by_layer(runs, library.layers, joined)
        for runs, library in zip(times, libraries, strict=True)
    )
    return first, second


def window(layer: TunedLayer, times: dict[str, Times], *, alone: bool = False) -> Times:
    """(runs,) nanoseconds of all occurrences of a workload, each with the layers around it unless
    alone."""
    total: Times = sum((times[name][0 if alone else 1] for name in layer.layers), start=np.zeros(1))
    return np.maximum(total, 1.0)  # a clock may stand still for a step of a few nanoseconds


def find_neighbours(
    layers: Sequence[TunedLayer], steps: Sequence[str], joinable: Mapping[str, int]
) -> None:
    """Note which workloads lie in each other's windows: their candidates are not measured at the
    same time.

    joinable: how many of the next layers a layer can be computed with.
    """
    order = list(dict.fromkeys(map(base_name, steps)))
    owner = {name: layer for layer in layers for name in layer.layers}
    for number, name in enumerate(order):
        near = [
            owner[other]
            for other in order[number : number + 2 + joinable.get(name, 0)]
            if other in owner
        ]
        for one, other in itertools.permutations(near, 2):
            if one is not other:
                one.neighbours.add(other.workload.key)


def next_round(layers: Sequence[TunedLayer], most: int) -> list[TunedLayer]:
    """The workloads to try next: trials in proportion to shares of the time, and never two
    neighbours at once."""
    chosen: list[TunedLayer] = []
    taken: set[str] = set()
    for layer in sorted((entry for entry in layers if not entry.exhausted), key=_turn):
        if len(chosen) < most and layer.workload.key not in taken:
            chosen.append(layer)
            taken |= {layer.workload.key, *layer.neighbours}
    return chosen


def _turn(layer: TunedLayer) -> float:
    """The less, the sooner: trials over share, and a layer where nothing helps any more can
    wait."""
    return (layer.trials + 1) * (2.0 if layer.done else 1.0) / max(layer.share, 1e-6)


def gain(layers: Iterable[TunedLayer]) -> float:
    """Untuned over tuned time, as the layers' own measurements promise."""
    saved = sum(layer.share * (1.0 - layer.ratio) for layer in layers)
    return 1.0 / max(1.0 - saved, 1e-6)
