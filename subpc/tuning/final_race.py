"""The end of a search: the whole network is raced, tuned against untuned, and what does not help in
it is dropped."""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from subpc.errors import CompileError
from subpc.tuned_schedules import database as tuning_db
from subpc.tuned_schedules.record import Verdict, network_key
from subpc.tuning.judge import judge
from subpc.tuning.layers import side_by_side, window
from subpc.tuning.measure import Measured, MeasureError, Measurer, Times
from subpc.tuning.report import TuneReport

if TYPE_CHECKING:
    from subpc.schedules.workload import Choice
    from subpc.tuning.device import Device
    from subpc.tuning.session import TuningSession

# Pairs of whole runs: enough for a certain median, and a bound on the time that slow networks take.
MIN_PAIRS, MAX_PAIRS, MAX_SECONDS, BATCH = 32, 160, 10.0, 8
# How often layers are dropped and the rest is raced again.
ATTEMPTS = 4


@dataclass(frozen=True, kw_only=True)
class NetworkTimes:
    """Nanoseconds of runs of two networks in turn, (runs, steps) each, and their libraries."""

    first: Times
    second: Times
    libraries: tuple[Measured, Measured]

    @property
    def ratios(self) -> list[float]:
        """The second one's time over the first one's, of each pair of runs."""
        return list(self.second.sum(axis=1) / self.first.sum(axis=1))


def finish(session: "TuningSession", device: "Device") -> TuneReport:
    """Find the schedules that stand the race, and record the verdict."""
    tuned = {layer.workload.key: layer.best for layer in session.layers if layer.tuned}
    if (
        session.apart is not None
        and session.apart != tuned
        and not _faster(_race(session, device, session.apart, tuned))
    ):
        tuned = session.apart  # joint changes, and what came after them, do not stand a long race
    found, race = len(tuned), _race(session, device, {}, tuned)
    for _ in range(ATTEMPTS):
        worse = _slower(session, tuned, race) if race else set(tuned)
        fewer = {key: choice for key, choice in tuned.items() if key not in worse}
        if not worse or (_faster(race) and not _faster(_race(session, device, tuned, fewer))):
            break
        tuned, race = fewer, _race(session, device, {}, fewer)
    return _conclude(session, tuned if _faster(race) else {}, race, found)


def _faster(race: NetworkTimes | None) -> bool:
    """Whether the second network is certainly faster than the first."""
    return race is not None and judge(race.ratios).high < 1.0


def _race(
    session: "TuningSession",
    device: "Device",
    first: "dict[str, Choice]",
    second: "dict[str, Choice]",
) -> NetworkTimes | None:
    """Run the network with two sets of schedules in turns; None if one of them does not run."""
    try:
        one, two = (
            session.baseline(session.choices(_all(session, tuned))) for tuned in (first, second)
        )
        a, b = device.run(lambda measurer: _pairs(measurer, one, two, session.timeout))
    except (CompileError, MeasureError):
        return None
    return NetworkTimes(first=a, second=b, libraries=(one, two))


def _all(session: "TuningSession", tuned: "dict[str, Choice]") -> "dict[str, Choice]":
    return {
        layer.workload.key: tuned.get(layer.workload.key, layer.default) for layer in session.layers
    }


def _pairs(
    measurer: Measurer, untuned: Measured, tuned: Measured, timeout: float
) -> tuple[Times, Times]:
    measurer.load("a", untuned)
    measurer.load("b", tuned)
    end, runs = time.monotonic() + MAX_SECONDS, ([], [])  # type: ignore[var-annotated]
    while len(runs[0]) * BATCH < MAX_PAIRS:
        a, b = measurer.pairs(BATCH, timeout * 2)
        runs[0].append(a)
        runs[1].append(b)
        done = len(runs[0]) * BATCH >= MIN_PAIRS and time.monotonic() > end
        if done:
            break
    return np.concatenate(runs[0]), np.concatenate(runs[1])


def _slower(session: "TuningSession", tuned: "dict[str, Choice]", race: NetworkTimes) -> set[str]:
    """Workloads that are certainly slower in the whole network, and do not make up for it in the
    layers that run after them."""
    before, after = side_by_side((race.first, race.second), race.libraries)
    worse = set()
    for layer in session.layers:
        if layer.workload.key in tuned:
            own, window_of_two = (
                judge(list(window(layer, after, alone=a) / window(layer, before, alone=a)))
                for a in (True, False)
            )
            if own.low > 1.0 and window_of_two.high >= 1.0:
                worse.add(layer.workload.key)
    return worse


def _conclude(
    session: "TuningSession", tuned: "dict[str, Choice]", race: NetworkTimes | None, found: int
) -> TuneReport:
    """Write the verdict and describe it."""
    network = network_key(workload.key for workload in session.builder.model.workloads.values())
    speedup = 1.0 / judge(race.ratios).ratio if tuned and race else 1.0
    dropped = found - len(tuned)
    verdict = Verdict(
        network=network,
        machine=session.machine,
        schedules=dict(tuned),
        speedup=speedup,
        dropped=dropped,
    )
    tuning_db.append(session.database, verdict)
    untuned_ms = float(np.median(race.first.sum(axis=1))) / 1e6 if race else session.total_ns / 1e6
    tuned_ms = float(np.median(race.second.sum(axis=1))) / 1e6 if tuned and race else untuned_ms
    return TuneReport(
        network=network,
        database=str(session.database),
        speedup=speedup,
        untuned_ms=untuned_ms,
        tuned_ms=tuned_ms,
        workloads=len(session.layers),
        tuned=len(tuned),
        dropped=dropped,
        trials=session.trials,
        known=session.known,
        failures=sum(layer.failures for layer in session.layers),
        seconds=time.monotonic() - session.started,
    )
