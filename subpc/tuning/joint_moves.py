"""Schedules of several layers changed at once, for what pays only where neighbours do the same.

How a kernel's tasks are shared out decides which core's cache holds which part of the image. A
layer that changes this alone reads what another core has written; all layers of one image size
together do not. The same goes for what layers ask for ahead.
"""

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from subpc.errors import CompileError
from subpc.tuned_schedules.record import workload_key
from subpc.tuning.device import Device
from subpc.tuning.judge import Judgement, judge
from subpc.tuning.layers import TunedLayer, by_layer, gain, window
from subpc.tuning.measure import Measured, MeasureError, Times
from subpc.tuning.outcomes import Outcome
from subpc.tuning.propose import difference

if TYPE_CHECKING:
    from subpc.schedules.workload import Choice
    from subpc.tuning.session import TuningSession

# Fields that neighbours agree on, under the names that the kernel families give them: loop order,
# and planes that are asked for ahead.
FIELDS = (("pixels_outer", "rows_outer"), ("prefetch",))
# The part of the budget between which joint changes are tried: single layers come first, for what
# helps together on a machine whose cores do not share a cache may be of no use on another.
AFTER, UNTIL = 0.75, 0.9
# No layer's share of a joint gain leaves it less than this of its time.
LEAST = 0.1


@dataclass(frozen=True, kw_only=True)
class Move:
    """New schedules by workload key."""

    what: str
    schedules: "dict[str, Choice]"


class NetworkRuns:
    """What pairs of runs of two libraries say about the whole network; and how long each of the
    changed layers takes."""

    def __init__(self, library: Measured, layers: Sequence[TunedLayer]) -> None:
        self._library, self.layers, self.count = library, layers, 0
        self.ratios: list[float] = []
        self._own: dict[str, list[float]] = {layer.workload.key: [] for layer in layers}

    def add(self, best: Times, library: Times) -> None:
        """Nanoseconds (runs, steps) of both."""
        now = by_layer(library, self._library.layers)
        self.ratios += list(library.sum(axis=1) / best.sum(axis=1))
        for layer in self.layers:
            self._own[layer.workload.key] += list(
                window(layer, now, alone=True) / 1000 / len(layer.layers)
            )
        self.count += len(best)

    @property
    def judgement(self) -> Judgement:
        """On the whole network."""
        return judge(self.ratios)

    @property
    def certain(self) -> bool:
        """Whether more pairs would not change the decision."""
        return self.judgement.certain

    def microseconds(self, layer: TunedLayer) -> float:
        """Of the layer with its new schedule."""
        return float(np.median(self._own[layer.workload.key]))


def moves(layers: Sequence[TunedLayer]) -> Iterator[Move]:
    """For each image size, the one that takes most time first: every value of each field, for all
    its layers that can have it.

    Looks at the layers' best schedules when it is asked for the next move.
    """
    sizes: dict[tuple[int, int], list[TunedLayer]] = {}
    for layer in layers:
        sizes.setdefault(layer.workload.source[1:], []).append(layer)
    biggest_first = sorted(sizes.items(), key=lambda entry: -sum(layer.share for layer in entry[1]))
    for names, (size, alike) in itertools.product(FIELDS, biggest_first):
        spaces = (choice for layer in alike for choice in layer.search.space)
        for value in dict.fromkeys(
            choice[name] for choice in spaces for name in names if name in choice
        ):
            moved = {
                layer.workload.key: choice
                for layer in alike
                if (choice := _moved(layer, names, value)) != layer.best
            }
            if len(moved) > 1:
                yield Move(what=f"{names[0]} {value} at {size[0]}x{size[1]}", schedules=moved)


def _moved(layer: TunedLayer, names: Sequence[str], value: int | str) -> "Choice":
    """The schedule nearest to the layer's best one in which the field has the value, or the best
    one."""
    field = next((name for name in names if name in layer.best), None)
    if field is None or layer.best[field] == value:
        return layer.best
    able = [
        choice
        for choice in layer.search.space
        if choice["family"] == layer.best["family"] and choice[field] == value
    ]
    return min(able, key=lambda choice: difference(choice, layer.best), default=layer.best)


def search_together(
    session: "TuningSession", device: Device, end: float, trials: int | None
) -> None:
    """Try joint changes until none is left, the time has come (time.monotonic), or the session has
    made so many trials.

    Raises DeviceLost where the machine is.
    """
    tried: set[str] = set()
    for move in moves(session.layers):
        if time.monotonic() > end or (trials is not None and session.trials >= trials):
            return
        key = workload_key(move.schedules)
        if key not in tried:
            tried.add(key)
            session.trials += 1
            _try(session, device, move)


def _try(session: "TuningSession", device: Device, move: Move) -> None:
    """Race the network with and without the change; keep and record it if it is certainly
    faster."""
    layers = [session.by_key[key] for key in move.schedules]
    now = {layer.workload.key: layer.best for layer in session.layers}
    try:
        best, library = (
            session.baseline(session.choices(now)),
            session.builder.build(session.choices(now | move.schedules)),
        )
        try:
            first = NetworkRuns(library, layers)
            _, race = device.race(
                best,
                library,
                first,
                lambda one: NetworkRuns(library, layers) if one.judgement.faster else None,
            )
        finally:
            session.builder.discard(library)
    except (CompileError, MeasureError):
        return
    if race is None or not race.judgement.faster:
        return
    # What they gain together is theirs in equal parts: a single layer's own time may have grown.
    part, whole = sum(layer.share * layer.ratio for layer in layers), 1.0 / gain(session.layers)
    ratio = max(1.0 - (1.0 - race.judgement.ratio) * whole / part, LEAST)
    for layer in layers:
        outcome = Outcome(
            choice=move.schedules[layer.workload.key],
            judgement=replace(race.judgement, ratio=ratio),
            pairs=race.count,
            microseconds=race.microseconds(layer),
        )
        session.record(layer, outcome, layer.ratio)
