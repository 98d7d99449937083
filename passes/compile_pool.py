"""Processes that compile, each with a time limit, and a new one in the place of one that crashed or
hung."""

import os
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from tvm.support.popen_pool import PopenWorker

from subpc.worker import worker_command, worker_environment


class _Worker(PopenWorker):  # type: ignore[misc]
    """TVM's worker, as a process that ends with this one."""

    def __init__(self) -> None:
        super().__init__()
        self._ending = threading.Lock()

    def kill(self) -> None:
        """End the process. Two threads may: the one that uses it, when it is gone, and the one that
        closes the pool."""
        process = self._proc
        if (
            process is not None
        ):  # first of all, because a pipe cannot be closed while another thread waits for an answer
            process.kill()
        with self._ending:
            super().kill()

    def _start(self) -> None:
        main_read, worker_write = os.pipe()
        worker_read, main_write = os.pipe()
        theirs = (worker_read, worker_write)
        command = worker_command("tvm.exec.popen_worker", *map(str, theirs))
        self._proc: Any = subprocess.Popen(
            command, pass_fds=theirs, stderr=subprocess.DEVNULL, env=worker_environment({})
        )
        for descriptor in theirs:
            os.close(descriptor)
        self._reader, self._writer = os.fdopen(main_read, "rb"), os.fdopen(main_write, "wb")


class CompilePool:
    """Runs functions in `workers` processes; one that takes longer than `seconds` is killed."""

    def __init__(self, workers: int, seconds: float) -> None:
        self._seconds = seconds
        self._threads = ThreadPoolExecutor(workers)
        self._own = threading.local()
        self._all: list[_Worker] = []

    def submit(self, function: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        """Call a function in one of the processes."""
        return self._threads.submit(self._run, function, arguments)

    def _run(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        if not hasattr(self._own, "worker"):
            self._own.worker = _Worker()
            self._all.append(self._own.worker)
        self._own.worker.send(function, arguments, timeout=self._seconds)
        return self._own.worker.recv()

    def close(self) -> None:
        """End the processes."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._all:
            worker.kill()
