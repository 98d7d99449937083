"""One machine to measure on, and a round of candidates on it: built, raced inside the network,
judged."""

import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from subpc.errors import CompileError
from subpc.tuning.judge import judge
from subpc.tuning.layers import side_by_side, window
from subpc.tuning.measure import DeviceLost, Measured, MeasureError, Measurer, Times
from subpc.tuning.outcomes import BATCH, CandidateRound, Outcome

if TYPE_CHECKING:
    from subpc.tuning.layers import TunedLayer
    from subpc.tuning.session import TuningSession

# A round is not measured for longer than this, however uncertain it still is: an undecided
# candidate gains next to nothing.
ROUND_SECONDS = 3.0
# Nor for more runs than this: what is undecided then gains next to nothing, too.
MAX_PAIRS = 400
# What looks faster is run again, at least as often as this, with both libraries loaded anew in each
# other's place.
CONFIRM_PAIRS = 32
# A network whose outputs deviate by more than this share of their range has a wrong kernel in it.
TOLERANCE = 1e-3
PROFILE_SECONDS = 120.0


class PairedRuns(Protocol):
    """Pairs of runs of two libraries, and whether more of them would change a decision."""

    count: int

    @property
    def certain(self) -> bool: ...
    def add(self, best: Times, library: Times) -> None: ...


AnyRuns = TypeVar("AnyRuns", bound=PairedRuns)


class LayerRuns:
    """What pairs of runs of two libraries say about the candidates of some layers: each with the
    layer after it."""

    def __init__(self, best: Measured, library: Measured, layers: "Sequence[TunedLayer]") -> None:
        self._libraries, self.layers, self.count = (best, library), list(layers), 0
        self._ratios: dict[str, list[float]] = {layer.workload.key: [] for layer in layers}
        self._own: dict[str, list[float]] = {layer.workload.key: [] for layer in layers}

    def add(self, best: Times, library: Times) -> None:
        """Nanoseconds (runs, steps) of both."""
        before, now = side_by_side((best, library), self._libraries)
        for layer in self.layers:
            self._ratios[layer.workload.key] += list(window(layer, now) / window(layer, before))
            self._own[layer.workload.key] += list(
                window(layer, now, alone=True) / 1000 / len(layer.layers)
            )
        self.count += len(best)

    @property
    def certain(self) -> bool:
        """Whether more pairs would change no decision."""
        return all(judge(ratios).certain for ratios in self._ratios.values())

    def outcomes(self, entry: CandidateRound) -> dict[str, Outcome]:
        """By workload key."""
        return {
            key: Outcome(
                choice=entry.candidates[key],
                judgement=judge(ratios),
                pairs=self.count,
                microseconds=float(np.median(self._own[key])),
            )
            for key, ratios in self._ratios.items()
        }


class Device:
    """One machine to measure on: connected when it is first needed."""

    def __init__(self, session: "TuningSession", connect: Callable[[], Measurer]) -> None:
        self._session, self._connect, self.lost = session, connect, ""
        self._measurer: Measurer | None = None

    @property
    def measurer(self) -> Measurer:
        """The connection."""
        if self._measurer is None:
            self._measurer = self._connect()
        return self._measurer

    def run(
        self, work: Callable[[Measurer], tuple[Times, Times]], tries: int = 1
    ) -> tuple[Times, Times]:
        """Do something that cannot be left out, on this machine or, if that is lost, on a new
        one."""
        for attempt in itertools.count(1):
            try:
                return work(self.measurer)
            except DeviceLost:
                self.close()
                if attempt > tries:
                    raise
        raise AssertionError

    def measure(self, entry: CandidateRound) -> dict[str, Outcome]:
        """Build and race candidates; if something fails, halves of them, until the one that fails
        is alone."""
        session = self._session
        try:
            library = session.builder.build(session.choices(entry.best | entry.candidates))
            best = session.baseline(session.choices(entry.best))
            try:
                return self._race(best, library, entry)
            finally:
                session.builder.discard(library)
        except (CompileError, MeasureError) as error:
            if len(entry.candidates) == 1:
                ((key, choice),) = entry.candidates.items()
                return {key: Outcome(choice=choice, error=str(error)[:300])}
        items = list(entry.candidates.items())
        halves = [dict(items[: len(items) // 2]), dict(items[len(items) // 2 :])]
        outcomes: dict[str, Outcome] = {}
        for half in halves:
            outcomes |= self.measure(
                CandidateRound(candidates=half, best=entry.best, ratios=entry.ratios)
            )
        return outcomes

    def _race(self, best: Measured, library: Measured, entry: CandidateRound) -> dict[str, Outcome]:
        """Judge every candidate of a round."""

        def runs_of(keys: Iterable[str]) -> LayerRuns:
            return LayerRuns(best, library, [self._session.by_key[key] for key in keys])

        def faster(first: LayerRuns) -> LayerRuns | None:
            keys = [key for key, outcome in first.outcomes(entry).items() if outcome.faster]
            return runs_of(keys) if keys else None

        first, second = self.race(best, library, runs_of(entry.candidates), faster)
        return first.outcomes(entry) | (second.outcomes(entry) if second else {})

    def race(
        self,
        best: Measured,
        library: Measured,
        first: AnyRuns,
        once_more: Callable[[AnyRuns], AnyRuns | None],
    ) -> tuple[AnyRuns, AnyRuns | None]:
        """Run both in turns until `first` is certain, or time is up; then what looks faster once
        more.

        Of a thousand candidates some look faster by luck, and the question is asked after every
        batch. Only the second measurement decides and is recorded: nothing was chosen by it, and
        its number of runs is fixed.
        """
        measurer, timeout = self.measurer, self._session.timeout
        measurer.load("a", best)
        measurer.load("b", library)
        deviation = measurer.difference()
        if not deviation <= TOLERANCE:
            raise MeasureError(f"wrong results: outputs differ by {deviation:.1e} of their range")
        end = time.monotonic() + ROUND_SECONDS
        while not (
            first.count and (time.monotonic() > end or first.count >= MAX_PAIRS or first.certain)
        ):
            first.add(*measurer.pairs(BATCH, timeout))
        second = once_more(first)
        if second is not None:
            measurer.load("a", library)
            measurer.load("b", best)
            end = time.monotonic() + ROUND_SECONDS
            while second.count < CONFIRM_PAIRS and time.monotonic() < end:
                second.add(*reversed(measurer.pairs(BATCH, timeout)))
        return first, second

    def close(self) -> None:
        """End the connection; the next use makes a new one."""
        if self._measurer is not None:
            self._measurer.close()
            self._measurer = None


def run_in_turns(measurer: Measurer, a: Measured, b: Measured, count: int) -> tuple[Times, Times]:
    """(count, steps) nanoseconds of a and of b, for a first look at a network."""
    measurer.load("a", a)
    measurer.load("b", b)
    return measurer.pairs(count, PROFILE_SECONDS)
