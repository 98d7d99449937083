"""Where a model's time goes: every step timed alone, grouped by the layer it came from."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from subpc.library.report import FLOATS, LayerReport, StepInfo
from subpc.machine.timing import time_calls
from subpc.profiling.probes import MachinePeak
from subpc.records import Record

Run = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class LayerTime(Record):
    """The steps of one layer together.

    share: of the sum of all steps; gflops: useful work a second, in units of 10^9 operations;
    of_peak: the same as a share of the machine's measured peak in `precision`, which is what the
    layer computes in, "" for steps that nothing is decided about; why_float: why not in integers;
    why_integers: why in them, where that was chosen;
    intensity: useful operations for each byte that the kernels touch; sparsity, n, decision,
    reason: what was decided about the layer, empty for steps that nothing is decided about;
    imbalance: time of the busiest worker / mean of all of them, at best 1.
    """

    layer: str
    kernel: str
    family: str
    ms: float
    share: float
    gflops: float
    gbytes: float
    intensity: float
    of_peak: float | None
    sparsity: float | None
    n: int
    decision: str
    reason: str
    imbalance: float | None
    precision: str = ""
    why_float: str = ""
    why_integers: str = ""


@dataclass(frozen=True, kw_only=True)
class Profile(Record):
    """Times by layer, in the order they run.

    total_ms: a whole call; steps_ms: the sum of the steps timed alone; notes: what could not be
    measured, and why.
    """

    layers: tuple[LayerTime, ...]
    total_ms: float
    steps_ms: float
    runs: int
    threads: int
    peak: MachinePeak | None = None
    notes: tuple[str, ...] = ()

    @property
    def gap_ms(self) -> float:
        """Sum of the steps minus the whole call: what calling each step alone adds, or what the
        steps lose to each other's caches."""
        return self.steps_ms - self.total_ms


class Clock(Protocol):
    """Counts how long each worker was busy."""

    def reset(self) -> None:
        """Start to count anew."""
        ...

    def busy(self) -> npt.NDArray[np.int64]:
        """(threads,) clock cycles that each worker has spent in parallel loops since `reset`."""
        ...


def time_steps(count: int, run: Run, *, runs: int, warmup: int) -> tuple[float, list[float]]:
    """Median milliseconds of whole calls, and of each of `count` steps; `run(first, last)` runs the
    steps [first, last).

    The steps run in order in every round, so that each finds its input in the cache as it does in a
    whole call.
    """
    total = statistics.median(time_calls(lambda: run(0, count), runs, warmup))
    samples: list[list[float]] = [[] for _ in range(count)]
    for _ in range(runs):
        for index, sample in enumerate(samples):
            start = time.perf_counter()
            run(index, index + 1)
            sample.append(1000 * (time.perf_counter() - start))
    return total, [statistics.median(sample) for sample in samples]


def measure_imbalance(
    steps: Sequence[StepInfo], run: Run, clock: Clock, *, runs: int
) -> dict[str, float]:
    """Time of the busiest worker / mean of all workers for each layer with parallel loops: the
    median of some runs."""
    groups, ratios = _groups(steps), dict[str, list[float]]()
    for _ in range(runs):
        busy = []
        for index in range(len(steps)):
            clock.reset()
            run(index, index + 1)
            busy.append(clock.busy())
        for layer, members in groups.items():
            cycles = np.sum([busy[i] for i in members], axis=0)
            if cycles.any():
                ratios.setdefault(layer, []).append(float(cycles.max() / cycles.mean()))
    return {layer: statistics.median(values) for layer, values in ratios.items()}


def by_layer(
    steps: Sequence[StepInfo],
    times: Sequence[float],
    *,
    layers: Sequence[LayerReport] = (),
    peak: MachinePeak | None = None,
    imbalance: Mapping[str, float] | None = None,
) -> tuple[LayerTime, ...]:
    """One row a layer from the milliseconds of each step."""
    everything = sum(times) or 1.0
    known = {layer.name: layer for layer in layers}
    rows = []
    for layer, members in _groups(steps).items():
        ms, main = sum(times[i] for i in members), max(members, key=lambda i: times[i])
        flops, bytes_ = sum(steps[i].flops for i in members), sum(steps[i].bytes for i in members)
        gflops, found = flops / (ms / 1000 or 1e-9) / 1e9, known.get(layer)
        rows.append(
            LayerTime(
                layer=layer,
                kernel=steps[main].kernel,
                family=steps[main].family,
                ms=ms,
                share=ms / everything,
                gflops=gflops,
                gbytes=bytes_ / (ms / 1000 or 1e-9) / 1e9,
                intensity=flops / max(bytes_, 1),
                of_peak=_of_peak(gflops, found, peak),
                sparsity=found.sparsity if found else None,
                n=found.n if found else 0,
                decision="" if found is None else "sparse" if found.sparse else "dense",
                reason=found.reason if found else "",
                imbalance=(imbalance or {}).get(layer),
                precision=found.precision if found else "",
                why_float=found.why_float if found else "",
                why_integers=found.why_integers if found else "",
            )
        )
    return tuple(rows)


def _of_peak(gflops: float, layer: LayerReport | None, peak: MachinePeak | None) -> float | None:
    """A rate as a share of the most that the machine does of the kind."""
    most = peak.of(layer.precision if layer else FLOATS) if peak else 0.0
    return gflops / most if most else None


def _groups(steps: Sequence[StepInfo]) -> dict[str, list[int]]:
    """The numbers of each layer's steps."""
    groups: dict[str, list[int]] = {}
    for index, step in enumerate(steps):
        groups.setdefault(step.layer, []).append(index)
    return groups
