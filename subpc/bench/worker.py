"""One engine in its own process: reads commands on stdin, answers on stdout, one JSON object a
line."""

import json
import os
import resource
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from subpc.errors import not_installed

# Every turn starts with calls for at least this long, for every engine.
WARMUP_SECONDS = 0.25


def main() -> None:
    """Serve one parent until it closes the pipe."""
    answers = open_answers()
    spec = json.loads(sys.stdin.readline())
    try:
        call, facts = _load(spec)
    except Exception as error:
        send(answers, {"failure": failure_of(error)})
        return
    send(answers, facts)
    for line in sys.stdin:
        command = json.loads(line)
        send(
            answers, {"ms": _turn(call, command["runs"], command["warmup"]), "peak_mb": _peak_mb()}
        )


def open_answers() -> TextIO:
    """Where the parent reads answers. Engines print to stdout at will: the protocol gets a
    descriptor of its own, and they get stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


def send(answers: TextIO, message: dict[str, Any]) -> None:
    """One answer."""
    answers.write(json.dumps(message) + "\n")
    answers.flush()


def failure_of(error: Exception) -> str:
    """Why an engine did not load a model, in at most 500 characters."""
    if isinstance(error, ModuleNotFoundError):
        return not_installed(error)
    return f"{type(error).__name__}: {error}"[:500]


def _load(spec: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    import numpy as np

    from subpc.bench.engines import ENGINES, load_inputs
    from subpc.runtime.arrays import save_arrays

    inputs = load_inputs(spec["inputs"])
    start = time.perf_counter()
    call = ENGINES[spec["engine"]](spec["model"], inputs, spec["threads"])
    outputs = call()
    milliseconds = 1000 * (time.perf_counter() - start)
    save_arrays(
        spec["outputs"], {f"output{i}": np.asarray(output) for i, output in enumerate(outputs)}
    )
    return call, {"first_answer_ms": milliseconds}


def _turn(call: Any, runs: int, warmup: int) -> list[float]:
    from subpc.machine.timing import time_calls

    # After the stop all of an engine's threads wake on one CPU; ten calls of a small network are
    # over before they have spread.
    end = time.perf_counter() + WARMUP_SECONDS
    while time.perf_counter() < end:
        call()
    return time_calls(call, runs, warmup)


def _peak_mb() -> float:
    # Before getrusage: its maximum is inherited from the parent across fork and exec.
    with suppress(FileNotFoundError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
