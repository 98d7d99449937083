"""The process in which candidates run: loads two libraries, runs them in turns on pinned threads; a
crash ends it and not its parent."""

import json
import os
import sys
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from subpc.library.report import TensorInfo
from subpc.library.shared_library import Library
from subpc.machine import native
from subpc.machine.memory import address, aligned_empty, workspace
from subpc.machine.threads import native_threads
from subpc.machine.worker_pool import start_workers
from subpc.runtime.deviation import share_of_range
from subpc.runtime.random_inputs import random_inputs

NANOSECONDS = 1_000_000_000


@dataclass
class Loaded:
    """A library with everything that its entry point is called with; the arrays stay alive with
    it."""

    library: Library
    function: int
    threads: int
    arguments: native.Arguments
    arrays: list[Any]
    times: Any  # (steps + 1, 2) int64: seconds and nanoseconds
    outputs: list[Any]

    def run(self) -> npt.NDArray[np.float64]:
        """One call; nanoseconds of each step, (steps,)."""
        native.run(self.function, self.arguments, self.threads)
        clock = self.times[:, 0] * NANOSECONDS + self.times[:, 1]
        steps: npt.NDArray[np.float64] = np.diff(clock).astype(np.float64)
        return steps


def load(spec: dict[str, Any], threads: int) -> Loaded:
    """Load what `Measured.spec` describes, with seeded input, to run on so many threads."""
    from pathlib import Path

    infos = [
        TensorInfo(name="", shape=tuple(shape), dtype=dtype) for shape, dtype in spec["inputs"]
    ]
    inputs = [_aligned(array) for array in random_inputs(infos)]
    outputs = [aligned_empty(shape, dtype) for shape, dtype in spec["outputs"]]
    source = np.load(spec["weights"], mmap_mode="r", allow_pickle=False)
    weights = workspace(source.size)
    weights[:] = source
    space = workspace(spec["workspace"])
    times = np.zeros((spec["steps"] + 1, 2), np.int64)
    shapes = [
        (a, tuple(shape) or (1,))
        for a, (shape, _) in zip(
            [*inputs, *outputs], [*spec["inputs"], *spec["outputs"]], strict=True
        )
    ]
    shapes += [(weights, (weights.size,)), (space, (space.size,)), (times, (times.size,))]
    arguments = native.Arguments(
        [native.Tensor(shape, str(array.dtype)) for array, shape in shapes]
    )
    for index, (array, _) in enumerate(shapes):
        arguments.point(index, address(array))
    arguments.steps(0, spec["steps"])
    library = Library.from_file(Path(spec["library"]))
    return Loaded(
        library=library,
        function=library.function(spec["symbol"]),
        threads=threads,
        arguments=arguments,
        arrays=[array for array, _ in shapes],
        times=times,
        outputs=outputs,
    )


def _aligned(array: Any) -> Any:
    copy = aligned_empty(array.shape, str(array.dtype))
    copy[...] = array
    return copy


def pin() -> None:
    """One CPU for each thread of the pool, the same ones until the end."""
    cpus = sorted(os.sched_getaffinity(0))
    for thread, cpu in zip(sorted(native_threads()), cpus, strict=False):
        os.sched_setaffinity(thread, {cpu})


class Runs(Protocol):
    """Anything that runs once and says how many nanoseconds each of its steps took."""

    def run(self) -> npt.NDArray[np.float64]:
        """One call; nanoseconds of each step, (steps,)."""
        ...


def take_turns(
    a: Runs, b: Runs, count: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(count, steps) nanoseconds of each, in the order A B B A A B ...

    A call before each timed one brings back its own data, as in a serving loop.
    """
    times: tuple[list[Any], list[Any]] = ([], [])
    for turn in range(count):
        for which in (0, 1) if turn % 2 == 0 else (1, 0):
            library = (a, b)[which]
            library.run()
            times[which].append(library.run())
    return np.stack(times[0]), np.stack(times[1])


def difference(a: Loaded, b: Loaded) -> float:
    """Largest deviation of any output, as a share of that output's range."""
    a.run()
    b.run()
    return max(deviation(x, y) for x, y in zip(a.outputs, b.outputs, strict=True))


def deviation(x: Any, y: Any) -> float:
    """Largest deviation of y from x, as a share of the range of x; 0 where x is not finite, and
    nothing can be compared."""
    return share_of_range(y, x) if np.isfinite(x).all() else 0.0


def main() -> None:
    """Serve one parent: one JSON object a line in, one out."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    threads = int(sys.argv[1])
    start_workers(threads)
    pin()
    slots: dict[str, Loaded] = {}
    for line in sys.stdin:
        answers.write(json.dumps(_answer(json.loads(line), slots, threads)) + "\n")
        answers.flush()


def _answer(command: dict[str, Any], slots: dict[str, Loaded], threads: int) -> dict[str, Any]:
    if command["do"] == "load":
        slots.pop(command["slot"], None)
        slots[command["slot"]] = load(command["spec"], threads)
        return {}
    if command["do"] == "compare":
        return {"difference": difference(slots["a"], slots["b"])}
    a, b = take_turns(slots["a"], slots["b"], command["count"])
    return {"a": a.tolist(), "b": b.tolist()}
