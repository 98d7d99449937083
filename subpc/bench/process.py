"""The parent's side of a worker: started, given its turns, and stopped while the others have
theirs."""

import json
import os
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from subpc.errors import SubpcError
from subpc.worker import worker_command, worker_environment


class WorkerError(SubpcError):
    """An engine could not load the model, or its process ended."""


def last_words(errors: str, code: int) -> str:
    """Why a process ended: the last line that it wrote, or its exit code."""
    lines = errors.strip().splitlines()
    return lines[-1][:300] if lines else f"exit code {code}"


def ask_once(module: str, message: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The answer of a process that gets one message, and puts its temporary files into `folder`.

    Raises WorkerError with what it says of a failure, or with its last words.
    """
    # NNCF reports each use over the network, but where it is told that it is being tested.
    environment = worker_environment({"TMPDIR": str(folder), "NNCF_CI": "1"})
    process = subprocess.run(
        worker_command(module),
        input=json.dumps(message) + "\n",
        capture_output=True,
        text=True,
        errors="replace",
        env=environment,
        check=False,
    )
    if not process.stdout:
        words = last_words(process.stderr, process.returncode)
        raise WorkerError(f"the process that quantizes ended: {words}")
    return _checked(process.stdout)


def _checked(line: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(line)
    if "failure" in answer:
        raise WorkerError(str(answer["failure"]))
    return answer


class Worker:
    """One engine in a process of its own.

    Between its turns the process is stopped by the kernel: an idle ONNX Runtime session spins, and
    a spinning neighbour makes the others look up to twice as slow.
    """

    def __init__(
        self, name: str, engine: str, model: Path, *, threads: int, inputs: Path, folder: Path
    ) -> None:
        self.name = name
        self.outputs = folder / f"{name}.npz"
        self.milliseconds: list[float] = []
        self.peak_mb = 0.0
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  closed with the worker
        environment = worker_environment({"OMP_NUM_THREADS": str(threads)})
        command = worker_command("subpc.bench.worker")
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=self._errors, env=environment, text=True
        )
        spec = {
            "engine": engine,
            "model": str(model),
            "threads": threads,
            "inputs": str(inputs),
            "outputs": str(self.outputs),
        }
        try:
            self.first_answer_ms = float(self._ask(spec)["first_answer_ms"])
            self._stop()
        except BaseException:
            self.close()
            raise

    def turn(self, runs: int, warmup: int) -> None:
        """Continue the worker, let it run, stop it again."""
        self._process.send_signal(signal.SIGCONT)
        answer = self._ask({"runs": runs, "warmup": warmup})
        self._stop()
        self.milliseconds += answer["ms"]
        self.peak_mb = float(answer["peak_mb"])

    def _stop(self) -> None:
        self._process.send_signal(signal.SIGSTOP)
        # The signal is delivered later; wait until the kernel says that the process has stopped.
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise WorkerError(f"the process of {self.name} ended: {self._last_words()}")
        return _checked(line)

    def _last_words(self) -> str:
        code = self._process.wait()
        self._errors.seek(0)
        return last_words(self._errors.read().decode(errors="replace"), code)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            with suppress(OSError):
                if stream is not None:
                    stream.close()
