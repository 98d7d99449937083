"""Worker threads: one pool a process, asleep when idle, and never missing in a child, whenever it
was forked."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from subpc.machine.threads import available_threads, native_threads
from subpc.runtime.model import CompiledModel, load

Expected = Callable[[np.ndarray], np.ndarray]

two_cpus = pytest.mark.skipif(available_threads() < 2, reason="needs two CPUs")


def image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((1, 3, 16, 16)).astype(np.float32)


def run(code: str, *arguments: object) -> str:
    """The output of a Python process of its own."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=True
    ).stdout.strip()


FORK = """
import os, sys, warnings, numpy as np, subpc
warnings.simplefilter("ignore")
x = np.ones((1, 3, 16, 16), np.float32)
load = lambda threads: subpc.load(sys.argv[1], threads=threads)
model, in_child = load(int(sys.argv[2])), int(sys.argv[4])
if sys.argv[3] == "ran": expected = model(x)
child = os.fork()
if child == 0:
    y = (model if in_child == model.threads else load(in_child))(x)
    grandchild = os.fork()
    if grandchild == 0:
        os._exit(0 if np.array_equal(model(x), y) else 1)
    os._exit(os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
model(x)
"""


@pytest.mark.parametrize("in_child", [1, 2])
@pytest.mark.parametrize("before", ["ran", "loaded"])
@pytest.mark.parametrize("threads", [1, 2])
@two_cpus
def test_a_child_calls_whatever_its_parent_had_run(
    toy: Path, threads: int, before: str, in_child: int
) -> None:
    assert run(FORK, toy, threads, before, in_child) == "0"


BUSY_FORK = """
import os, sys, threading, warnings, numpy as np, subpc
warnings.simplefilter("ignore")
x = np.ones((1, 3, 16, 16), np.float32)
model = subpc.load(sys.argv[1], threads=2)
expected, stop = model(x), threading.Event()

def work():
    while not stop.is_set():
        assert np.array_equal(model(x), expected)
        subpc.load(sys.argv[1], threads=1)(x)

threads = [threading.Thread(target=work, daemon=True) for _ in range(3)]
[thread.start() for thread in threads]
codes = []
for _ in range(100):
    child = os.fork()
    if child == 0:
        import signal
        signal.alarm(20)
        fresh = subpc.load(sys.argv[1], threads=2)
        same = np.array_equal(model(x), expected) and np.array_equal(fresh(x), expected)
        os._exit(0 if same else 1)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
stop.set()
[thread.join() for thread in threads]
print(set(codes))
"""


@two_cpus
def test_a_child_calls_although_other_threads_were_calling_at_the_fork(toy: Path) -> None:
    assert run(BUSY_FORK, toy) == "{0}"


def test_threads_that_end_leave_nothing_behind(toy: Path, toy_expected: Expected) -> None:
    models = [load(toy, threads=threads) for threads in range(1, available_threads() + 1)]
    answers: list[bool] = []
    models[-1](image())
    before = len(native_threads())
    for _ in range(100):
        thread = threading.Thread(
            target=lambda: answers.extend(
                np.array_equal(m(image()), toy_expected(image())) for m in models
            )
        )
        thread.start()
        thread.join()
    for _ in range(100):  # the kernel may show a thread for a moment longer than Python
        if len(native_threads()) <= before:
            break
        time.sleep(0.01)
    assert len(native_threads()) <= before
    assert answers == [True] * (100 * len(models))


ONE_THREAD = """
import os, sys, numpy as np, subpc
model = subpc.load(sys.argv[1], threads=1)
before = len(os.listdir("/proc/self/task"))
model(np.ones((1, 3, 16, 16), np.float32))
print(len(os.listdir("/proc/self/task")) - before)
"""


def test_one_thread_needs_no_worker(toy: Path) -> None:
    assert run(ONE_THREAD, toy) == "0"


@two_cpus
def test_an_idle_process_uses_no_cpu(toy: Path) -> None:
    model = load(toy, threads=2)
    model(image())
    time.sleep(0.1)
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.05


@two_cpus
def test_workers_that_fell_asleep_wake_up_again(toy: Path, toy_expected: Expected) -> None:
    model = load(toy, threads=2)
    for seed in range(20):
        np.testing.assert_array_equal(model(image(seed)), toy_expected(image(seed)))
        time.sleep(0.005)


def test_many_callers_with_different_numbers_of_threads_get_their_own_answers(
    toy: Path, other_toy: Path
) -> None:
    models = [
        load(path, threads=n)
        for path in (toy, other_toy)
        for n in range(1, available_threads() + 1)
    ]
    expected = {
        (which, seed): model(image(seed)) for which, model in enumerate(models) for seed in range(4)
    }
    wrong: list[tuple[int, int]] = []

    def work(offset: int) -> None:
        for step in range(300):
            key = ((offset + step) % len(models), step % 4)
            if not np.array_equal(models[key[0]](image(key[1])), expected[key]):
                wrong.append(key)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("threads", range(1, available_threads() + 1))
def test_denormals_count_whatever_the_program_has_set(
    make_toy: Callable[..., Path], tmp_path: Path, threads: int
) -> None:
    negated = np.array([0, -1], np.float32)  # y = max(-x, 0)
    path = make_toy(tmp_path / "a.so", weights=negated)
    x = np.full((1, 3, 16, 16), -1e-40, np.float32)
    assert torch.set_flush_denormal(True)
    try:
        y = load(path, threads=threads)(x)
        still_set = float(torch.tensor(1e-40) * 1) == 0
    finally:
        torch.set_flush_denormal(False)
    np.testing.assert_array_equal(y, -x)
    assert still_set, "a call changed the program's own setting"


def test_lanes_are_used_again(toy: Path) -> None:
    model: CompiledModel = load(toy)
    for _ in range(3):
        model(image())
    entry = next(iter(model._entries.values()))
    assert len(entry._free) == 1


def test_the_pool_is_the_processs_own(toy: Path) -> None:
    load(toy)(image())
    names = [
        Path(f"/proc/self/task/{thread}/comm").read_text().strip()
        for thread in os.listdir("/proc/self/task")
    ]
    assert names.count("subpc-worker") <= available_threads() - 1
