"""Where a model's time goes: every step timed alone, grouped by the layer it came from."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from subpc.report import Record, StepInfo
from subpc.timing import time_calls


@dataclass(frozen=True, kw_only=True)
class LayerTime(Record):
    """The steps of one layer together. share: of the sum of all steps; gflops: useful work a second."""

    layer: str
    kernel: str
    family: str
    ms: float
    share: float
    gflops: float
    gbytes: float


@dataclass(frozen=True, kw_only=True)
class Profile(Record):
    """Times by layer, in the order they run. total_ms: a whole call; steps_ms: the sum of the steps timed alone."""

    layers: tuple[LayerTime, ...]
    total_ms: float
    steps_ms: float
    runs: int


def measure_steps(steps: Sequence[StepInfo], run: Callable[[int, int], None], *, runs: int, warmup: int) -> Profile:
    """Time whole calls, then each step; `run(first, last)` runs the steps [first, last).

    The steps run in order in every round, so that each finds its input in the cache as it does in a whole call.
    """
    total = statistics.median(time_calls(lambda: run(0, len(steps)), runs, warmup))
    samples: list[list[float]] = [[] for _ in steps]
    for _ in range(runs):
        for index, sample in enumerate(samples):
            start = time.perf_counter()
            run(index, index + 1)
            sample.append(1000 * (time.perf_counter() - start))
    times = [statistics.median(sample) for sample in samples]
    return Profile(layers=_by_layer(steps, times), total_ms=total, steps_ms=sum(times), runs=runs)


def _by_layer(steps: Sequence[StepInfo], times: Sequence[float]) -> tuple[LayerTime, ...]:
    groups: dict[str, list[int]] = {}
    for index, step in enumerate(steps):
        groups.setdefault(step.layer, []).append(index)
    everything = sum(times) or 1.0
    rows = []
    for layer, members in groups.items():
        ms = sum(times[i] for i in members)
        main = max(members, key=lambda i: times[i])
        seconds = ms / 1000 or 1e-9
        rows.append(
            LayerTime(
                layer=layer,
                kernel=steps[main].kernel,
                family=steps[main].family,
                ms=ms,
                share=ms / everything,
                gflops=sum(steps[i].flops for i in members) / seconds / 1e9,
                gbytes=sum(steps[i].bytes for i in members) / seconds / 1e9,
            )
        )
    return tuple(rows)
