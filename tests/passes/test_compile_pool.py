"""Processes that compile."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from tvm.support import popen_pool

from subpc.passes.compile_pool import CompilePool


def test_two_threads_may_end_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """After Ctrl-C the thread that waits for an answer and the one that closes the pool do so at
    once."""
    pool = CompilePool(1, 60.0)
    assert pool.submit(abs, -1).result() == 1
    delays = iter([0.2, 0.6])
    monkeypatch.setattr(popen_pool, "kill_child_processes", lambda _: time.sleep(next(delays)))
    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(pool.close) for _ in range(2)]:
            done.result()


def test_closing_does_not_wait_for_work() -> None:
    pool = CompilePool(1, 60.0)
    assert pool.submit(abs, -1).result() == 1
    pool.submit(time.sleep, 30)
    time.sleep(0.3)
    start = time.monotonic()
    pool.close()
    assert time.monotonic() - start < 10
