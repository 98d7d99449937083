"""Times of repeated calls: median and percentiles."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from subpc.errors import ConfigError
from subpc.records import Record


@dataclass(frozen=True, kw_only=True)
class Timing(Record):
    """Milliseconds of a series of calls."""

    runs: int
    p50: float
    p90: float
    p99: float
    mean: float
    best: float

    @property
    def per_second(self) -> float:
        """Calls a second at the mean time."""
        return 1000 / self.mean if self.mean else 0.0


def summarize(milliseconds: Sequence[float]) -> Timing:
    """Median, percentiles (nearest rank), mean and best of a series."""
    ordered = sorted(milliseconds)
    middle = len(ordered) // 2
    median = ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
    rank = {p: ordered[min(len(ordered) - 1, -(-len(ordered) * p // 100) - 1)] for p in (90, 99)}
    return Timing(
        runs=len(ordered),
        p50=median,
        p90=rank[90],
        p99=rank[99],
        mean=sum(ordered) / len(ordered),
        best=ordered[0],
    )


def time_calls(call: Callable[[], object], runs: int, warmup: int) -> list[float]:
    """Milliseconds of each of `runs` calls, after `warmup` calls that do not count."""
    if runs < 1 or warmup < 0:
        raise ConfigError(
            f"runs is {runs} and warmup {warmup}; runs has to be 1 or more, warmup 0 or more"
        )
    for _ in range(warmup):
        call()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - start))
    return times


def measure(call: Callable[[], object], *, runs: int, warmup: int) -> Timing:
    """Time a call."""
    return summarize(time_calls(call, runs, warmup))
