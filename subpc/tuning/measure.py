"""Timing two libraries against each other, on this machine: the parent's side of the measuring
process."""

import json
import select
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from subpc.errors import TuningError
from subpc.worker import worker_command, worker_environment

Times = npt.NDArray[np.float64]


class MeasureError(TuningError):
    """A candidate crashed, hung, or gave wrong results."""


class DeviceLost(TuningError):
    """The measuring machine, not the candidate, is gone: the work goes to another one."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A library whose entry point times its own steps.

    inputs, outputs: (shape, dtype); layers: name of each step's layer; joined: those that the step
    before them computes.
    """

    library: Path
    weights: Path
    symbol: str
    inputs: tuple[tuple[tuple[int, ...], str], ...]
    outputs: tuple[tuple[tuple[int, ...], str], ...]
    workspace: int
    layers: tuple[str, ...]
    joined: tuple[str, ...] = ()

    def spec(self) -> dict[str, Any]:
        """What the measuring process needs, as JSON values."""
        return {
            "library": str(self.library),
            "weights": str(self.weights),
            "symbol": self.symbol,
            "inputs": self.inputs,
            "outputs": self.outputs,
            "workspace": self.workspace,
            "steps": len(self.layers),
        }


class Measurer(Protocol):
    """Runs pairs of libraries. Raises MeasureError if a library is to blame, DeviceLost if the
    machine is."""

    def load(self, slot: str, library: Measured) -> None: ...
    def difference(self) -> float: ...
    def pairs(self, count: int, timeout: float) -> tuple[Times, Times]: ...
    def close(self) -> None: ...


class LocalMeasurer:
    """A process of its own that runs the libraries; it is started again after a crash or a hang."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._process: subprocess.Popen[str] | None = None
        self._loaded: dict[str, Measured] = {}
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  closed with the process

    def load(self, slot: str, library: Measured) -> None:
        """Put a library into slot "a" or "b"."""
        if self._process is None or self._loaded.get(slot) != library:
            self._loaded[slot] = library
            self._ask({"do": "load", "slot": slot, "spec": library.spec()}, timeout=120.0)

    def difference(self) -> float:
        """How far the outputs of b are from those of a."""
        return float(self._ask({"do": "compare"}, timeout=120.0)["difference"])

    def pairs(self, count: int, timeout: float) -> tuple[Times, Times]:
        """(count, steps) nanoseconds of a and of b, which take turns."""
        answer = self._ask({"do": "pairs", "count": count}, timeout=timeout)
        return np.array(answer["a"], float), np.array(answer["b"], float)

    def _ask(self, command: dict[str, Any], timeout: float) -> dict[str, Any]:
        process = self._process or self._start()
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(command) + "\n")
            process.stdin.flush()
            line = (
                process.stdout.readline()
                if select.select([process.stdout], [], [], timeout)[0]
                else None
            )
        except BrokenPipeError:
            line = ""
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        words = f"no answer within {timeout:.0f} s" if line is None else self._last_words()
        self.close()
        raise MeasureError(words)

    def _start(self) -> "subprocess.Popen[str]":
        environment = worker_environment({"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"})
        command = worker_command("subpc.tuning.measure_worker", str(self._threads))
        pipe = subprocess.PIPE
        # A process group of its own: Ctrl-C is for the tuner, which ends this process when it is
        # done with it.
        options: dict[str, Any] = {"env": environment, "text": True, "start_new_session": True}
        self._process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=self._errors, **options
        )
        before, self._loaded = self._loaded, {}
        for slot, library in before.items():
            self._loaded[slot] = library
            self._ask({"do": "load", "slot": slot, "spec": library.spec()}, timeout=120.0)
        return self._process

    def _last_words(self) -> str:
        assert self._process is not None
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return (
            f"the measuring process ended with {'signal ' + str(-code) if code < 0 else code}"
            + (f": {lines[-1][:200]}" if lines else "")
        )

    def close(self) -> None:
        """End the process; the next request starts another one."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                assert stream is not None
                stream.close()
        self._process, self._loaded = None, {}
        self._errors.seek(0)
        self._errors.truncate()
