"""Profile a loaded model: its times, the balance of its workers, and the machine that it runs
on."""

from typing import TYPE_CHECKING

from subpc.library.shared_library import Library
from subpc.machine import worker_pool
from subpc.machine.cpu import idle_cpus
from subpc.profiling.probes import ProbeError, Probes, highest
from subpc.profiling.profile import Profile, Run, by_layer, measure_imbalance, time_steps

if TYPE_CHECKING:
    from subpc.library.report import FunctionInfo, Metadata

# Imbalance is measured on so many of the rounds: a ratio needs fewer of them than a time.
_CLOCKED_RUNS = 10
# With fewer CPUs free than this share of the threads, times say more about the neighbours than
# about the model.
_IDLE_SHARE = 0.85


def profile_function(
    metadata: "Metadata",
    function: "FunctionInfo",
    library: Library,
    run: Run,
    *,
    threads: int,
    runs: int,
    warmup: int,
    probes: bool,
) -> Profile:
    """Time the steps of one function; `run(first, last)` runs some of them. probes: measure machine
    and workers too."""
    # Asked before the workers start: they spin for a moment, and would count as somebody else.
    steps, idle = function.steps, idle_cpus()
    worker_pool.start_workers(threads)
    notes = (
        []
        if idle > _IDLE_SHARE * threads
        else [f"only {idle:.1f} CPUs were free for {threads} threads: the times are unreliable"]
    )
    tools: Probes | None = None
    try:
        tools = Probes(metadata.target, threads) if probes else None
    except ProbeError as error:
        notes.append(f"no machine peak and no thread imbalance: {error}")
    # Before and after: on a machine with other work the scheduler may keep two threads on one CPU
    # for a while.
    peaks = [tools.peak()] if tools else []
    total, times = time_steps(len(steps), run, runs=runs, warmup=warmup)
    imbalance: dict[str, float] = {}
    if tools:
        with tools.clock(library) as counts:
            imbalance = (
                measure_imbalance(steps, run, tools, runs=min(runs, _CLOCKED_RUNS))
                if counts
                else {}
            )
        peaks.append(tools.peak())
    peak = highest(peaks) if peaks else None
    rows = by_layer(steps, times, layers=metadata.layers, peak=peak, imbalance=imbalance)
    return Profile(
        layers=rows,
        total_ms=total,
        steps_ms=sum(times),
        runs=runs,
        threads=threads,
        peak=peak,
        notes=tuple(notes),
    )
