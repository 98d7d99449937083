"""The kernel tests look for races: they can find one only if a parallel loop really runs on two
workers."""

from dataclasses import dataclass

import numpy as np
import pytest
import tvm
from tvm import tirx
from tvm.tirx.script import builder as T

from subpc.machine.threads import available_threads
from subpc.schedules.isa import GENERIC, VectorIsa
from subpc.schedules.kernel import kernel_builder
from subpc.schedules.operand import integers
from tests.schedules.harness import call

TASKS, LOOPS = 8, 10


@dataclass(frozen=True, kw_only=True)
class WhoRuns:
    """y[i] = the operating system's number of the thread that ran task i of a parallel loop."""

    family: str = "who_runs"
    operands: tuple[str, ...] = ("y",)
    flops: int = 0

    def prim_func(self, symbol: str, isa: VectorIsa) -> tvm.tirx.PrimFunc:
        with kernel_builder(symbol, {"y": integers(TASKS)}) as frame:
            (y,) = frame.buffers
            with T.parallel(0, TASKS) as i:
                T.evaluate(
                    tirx.call_extern("int32", "usleep", 1000)
                )  # long enough for a thread that is late
                T.buffer_store(y, tirx.call_extern("int32", "gettid"), [i])
        assert frame.func is not None
        return frame.func


def threads_of(workers: int) -> list[int]:
    """How many threads took part in each of many loops: a thread may take the task of one that is
    late."""
    y, counts = np.zeros(TASKS, "int32"), []
    for _ in range(LOOPS):
        call(WhoRuns(), y, isa=GENERIC, threads=workers)
        counts.append(len(set(y.tolist())))
    return counts


@pytest.mark.skipif(available_threads() < 2, reason="needs two CPUs")
def test_a_parallel_loop_runs_on_as_many_threads_as_asked() -> None:
    assert max(threads_of(2)) == 2
    assert set(threads_of(1)) == {1}
