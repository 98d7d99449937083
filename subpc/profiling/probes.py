"""What a profile measures beside the model: this machine's peak, and how long each worker of a
parallel loop was busy."""

import ctypes
import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from subpc.errors import SubpcError
from subpc.library.report import INTEGERS
from subpc.library.shared_library import LAUNCHER, Library
from subpc.machine import worker_pool
from subpc.machine.cpu import cpu_name
from subpc.machine.memory import address, workspace
from subpc.profiling.build_probes import BYTES, CACHE, FMA, MEMORY
from subpc.records import Record
from subpc.scratch import scratch_folder
from subpc.worker import worker_command, worker_environment

# The names in schedules/launch_clock.py, which only the compiling process can import.
LAUNCH, ORIGINAL, BUSY = "subpc_clock_launch", "subpc_clock_original", "subpc_clock_busy"
WORKERS, CELL_WORDS = 1024, 8
_BUILD_SECONDS = 120
# The best of many short runs: a neighbour on the machine can only make one slower. New threads
# share a CPU for the first 50 ms.
_SECONDS, _REPEATS = 0.3, 10


class ProbeError(SubpcError):
    """This installation cannot compile the probes."""


@dataclass(frozen=True, kw_only=True)
class MachinePeak(Record):
    """The most that was measured on these threads: multiply-adds on vectors of `lanes` floats, and
    of bytes (0 where the target has no instructions for them), reading from a core's cache and
    memory."""

    cpu: str
    threads: int
    lanes: int
    gflops: float
    cache_gbytes: float
    memory_gbytes: float
    integer_gops: float = 0.0

    def of(self, precision: str) -> float:
        """Operations a second, in units of 10^9, in what a layer computes in."""
        return self.integer_gops if precision == INTEGERS else self.gflops


def highest(peaks: Sequence[MachinePeak]) -> MachinePeak:
    """The best of several measurements of one machine, rate by rate."""
    rates = ("gflops", "integer_gops", "cache_gbytes", "memory_gbytes")
    return replace(peaks[0], **{rate: max(getattr(peak, rate) for peak in peaks) for rate in rates})


class Probes:
    """The compiled probes, loaded."""

    def __init__(self, target: str, threads: int) -> None:
        """Compile for `target` and load; ProbeError says why that cannot be done here."""
        self.threads = threads
        with scratch_folder("probe") as folder:
            path = Path(folder) / "probes.so"
            self._facts = _build(path, target, threads)
            self._library = Library.from_file(path)
        cells = (ctypes.c_int64 * (WORKERS * CELL_WORDS)).in_dll(self._library.symbols, BUSY)
        self._busy: npt.NDArray[np.int64] = np.ctypeslib.as_array(cells).reshape(
            WORKERS, CELL_WORDS
        )[:, 0]

    def peak(self) -> MachinePeak:
        """Measure the machine; takes about a second."""
        worker_pool.use_threads(self.threads)
        worker_pool.start_workers(self.threads)
        facts = self._facts
        x = workspace(facts["floats"])
        x[:] = 0.5
        y = workspace(self.threads * max(facts["vector_floats"], 16))
        symbols = (FMA, CACHE, MEMORY, *([BYTES] if facts["byte_operations"] else []))
        rate = {symbol: 1 / self._best(symbol, x, y) / 1e9 for symbol in symbols}
        return MachinePeak(
            cpu=cpu_name(),
            threads=self.threads,
            lanes=facts["lanes"],
            gflops=facts["operations"] * rate[FMA],
            cache_gbytes=facts["cache_bytes"] * rate[CACHE],
            memory_gbytes=facts["memory_bytes"] * rate[MEMORY],
            integer_gops=facts["byte_operations"] * rate.get(BYTES, 0.0),
        )

    def _best(self, symbol: str, *operands: npt.NDArray[np.float32]) -> float:
        """Seconds of the fastest of some calls."""
        function = self._library.symbols[symbol]
        function.argtypes, pointers = (
            [ctypes.c_void_p] * len(operands),
            [address(o) for o in operands],
        )
        times: list[float] = []
        while sum(times) < _SECONDS or len(times) < _REPEATS:
            start = time.perf_counter()
            function(*pointers)
            times.append(time.perf_counter() - start)
        return min(times)

    @contextmanager
    def clock(self, library: Library) -> Iterator[bool]:
        """Within, `busy` counts for the parallel loops of `library`; False where it has none. Calls
        by other threads count too."""
        launcher, original = library.pointer(LAUNCHER), self._library.pointer(ORIGINAL)
        if launcher is None or original is None:
            yield False
            return
        original.value = before = launcher.value
        launcher.value = ctypes.cast(self._library.symbols[LAUNCH], ctypes.c_void_p).value
        try:
            yield True
        finally:
            launcher.value = before

    def reset(self) -> None:
        """Start to count anew."""
        self._busy[:] = 0

    def busy(self) -> npt.NDArray[np.int64]:
        """(threads,) clock cycles that each worker has spent in parallel loops since `reset`."""
        return np.array(self._busy[: self.threads])


def _build(path: Path, target: str, threads: int) -> dict[str, int]:
    command, environment = (
        worker_command("subpc.profiling.build_probes", str(path), target, str(threads)),
        worker_environment({}),
    )
    try:
        result = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            env=environment,
            timeout=_BUILD_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ProbeError(f"compiling the probes did not work: {error}") from error
    if result.returncode:
        lines = result.stderr.strip().splitlines() or [f"exit code {result.returncode}"]
        raise ProbeError(f"the probes cannot be compiled here ({lines[-1][:200]})")
    facts: dict[str, int] = json.loads(result.stdout)
    return facts
