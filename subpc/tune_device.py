"""One machine to measure on, and a round of candidates on it: built, raced inside the network, judged."""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from subpc.errors import CompileError
from subpc.measure import DeviceLost, Measured, MeasureError, Measurer, Times
from subpc.tune_layers import by_layer, window
from subpc.tune_stats import Judgement, judge

if TYPE_CHECKING:
    from subpc.schedules.workload import Choice
    from subpc.tune_rounds import Tuner

# Runs of each library between two looks at the clock and the judgement.
BATCH = 4
# A round is not measured for longer than this, however uncertain it still is: an undecided candidate gains next to nothing.
ROUND_SECONDS = 3.0
# Nor for more runs than this: what is undecided then gains next to nothing, too.
MAX_PAIRS = 400
# A network whose outputs deviate by more than this share of their range has a wrong kernel in it.
TOLERANCE = 1e-3
PROFILE_SECONDS = 120.0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One candidate: judged, or failed."""

    choice: "Choice"
    judgement: Judgement | None = None
    pairs: int = 0
    microseconds: float = 0.0
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Round:
    """Candidates by workload key, and the schedules that they compete with."""

    candidates: "dict[str, Choice]"
    best: "dict[str, Choice]"
    ratios: dict[str, float]


class Device:
    """One machine to measure on: connected when it is first needed."""

    def __init__(self, tuner: "Tuner", connect: Callable[[], Measurer]) -> None:
        self._tuner, self._connect, self.lost = tuner, connect, ""
        self._measurer: Measurer | None = None

    @property
    def measurer(self) -> Measurer:
        """The connection."""
        if self._measurer is None:
            self._measurer = self._connect()
        return self._measurer

    def run(self, work: Callable[[Measurer], tuple[Times, Times]], tries: int = 1) -> tuple[Times, Times]:
        """Do something that cannot be left out, on this machine or, if that is lost, on a new one."""
        for attempt in itertools.count(1):
            try:
                return work(self.measurer)
            except DeviceLost:
                self.close()
                if attempt > tries:
                    raise
        raise AssertionError

    def measure(self, entry: Round) -> dict[str, Outcome]:
        """Build and race candidates; if something fails, halves of them, until the culprit is alone."""
        tuner = self._tuner
        try:
            library = tuner.builder.build(tuner.choices(entry.best | entry.candidates))
            best = tuner.baseline(tuner.choices(entry.best))
            try:
                return self._race(best, library, entry)
            finally:
                tuner.builder.discard(library)
        except (CompileError, MeasureError) as error:
            if len(entry.candidates) == 1:
                ((key, choice),) = entry.candidates.items()
                return {key: Outcome(choice=choice, error=str(error)[:300])}
        items = list(entry.candidates.items())
        halves = [dict(items[: len(items) // 2]), dict(items[len(items) // 2 :])]
        outcomes: dict[str, Outcome] = {}
        for half in halves:
            outcomes |= self.measure(Round(candidates=half, best=entry.best, ratios=entry.ratios))
        return outcomes

    def _race(self, best: Measured, library: Measured, entry: Round) -> dict[str, Outcome]:
        """Run both in turns until every candidate is judged, or time is up."""
        measurer, layers = self.measurer, [self._tuner.by_key[key] for key in entry.candidates]
        measurer.load("a", best)
        measurer.load("b", library)
        deviation = measurer.difference()
        if not deviation <= TOLERANCE:
            raise MeasureError(f"wrong results: outputs differ by {deviation:.1e} of their range")
        ratios: dict[str, list[float]] = {layer.workload.key: [] for layer in layers}
        own: dict[str, list[float]] = {layer.workload.key: [] for layer in layers}
        end = time.monotonic() + ROUND_SECONDS
        while True:
            a, b = measurer.pairs(BATCH, self._tuner.timeout)
            times_a, times_b = by_layer(a, best.layers), by_layer(b, library.layers)
            for layer in layers:
                ratios[layer.workload.key] += list(window(layer, times_b) / window(layer, times_a))
                own[layer.workload.key] += list(window(layer, times_b, alone=True) / 1000 / len(layer.layers))
            judged = {key: judge(values) for key, values in ratios.items()}
            measured = len(next(iter(ratios.values())))
            if time.monotonic() > end or measured >= MAX_PAIRS or all(j.certain for j in judged.values()):
                break
        return {
            key: Outcome(choice=entry.candidates[key], judgement=j, pairs=len(ratios[key]), microseconds=float(np.median(own[key])))
            for key, j in judged.items()
        }

    def close(self) -> None:
        """End the connection; the next use makes a new one."""
        if self._measurer is not None:
            self._measurer.close()
            self._measurer = None


def both(measurer: Measurer, a: Measured, b: Measured, count: int) -> tuple[Times, Times]:
    measurer.load("a", a)
    measurer.load("b", b)
    return measurer.pairs(count, PROFILE_SECONDS)
