"""Timing libraries on other machines, through TVM's RPC tracker and servers."""

import itertools
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from subpc.errors import ConfigError, TuningError
from subpc.library.report import TensorInfo
from subpc.machine.target import Target
from subpc.runtime.random_inputs import random_inputs
from subpc.text import last_line
from subpc.tuning.measure import DeviceLost, Measured, MeasureError, Measurer, Times

# A session ends after this long whatever happens: a candidate that hangs does not keep a machine.
SESSION_SECONDS = 240
# The tracker notices a server's end within a moment.
SETTLE_SECONDS = 1.0
CONNECT_SECONDS = 5.0
_uploads = itertools.count()
NANOSECONDS = 1_000_000_000
# What TVM's server says when it has ended a session that took too long.
TIMEOUT_ERROR = "RPCSessionTimeoutError"


class Fleet:
    """The machines that are registered under a key. Raises TuningError when the tracker is gone."""

    def __init__(self, tracker: str, key: str) -> None:
        self.tracker, self.key = tracker, key
        self._address = _address(tracker)
        self._lock = threading.Lock()

    def count(self) -> int:
        """How many machines there are."""
        with self._lock:
            summary = self._session().summary()
        return sum(1 for server in summary["server_info"] if server["key"] == f"server:{self.key}")

    def request(self) -> Any:
        """A session on the next free machine."""
        if self.count() == 0:
            raise DeviceLost(f"no machine with key {self.key!r} at tracker {self.tracker}")
        try:
            return self._session().request(self.key, session_timeout=SESSION_SECONDS, max_retry=1)
        except (OSError, RuntimeError) as error:
            raise DeviceLost(
                f"a machine with key {self.key!r} does not answer: {last_line(error, 150)}"
            ) from error

    def _session(self) -> Any:
        import tvm.rpc

        try:
            # TVM itself would try for a minute.
            socket.create_connection(self._address, timeout=CONNECT_SECONDS).close()
            return tvm.rpc.connect_tracker(*self._address)
        except (OSError, RuntimeError) as error:
            raise TuningError(
                f"the tracker {self.tracker} cannot be reached ({last_line(error, 150)}); records"
                " that were made are kept\nStart it with: python -m tvm.exec.rpc_tracker --host"
                " 0.0.0.0 --port PORT, then repeat the command."
            ) from error


def _address(tracker: str) -> tuple[str, int]:
    host, colon, port = tracker.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(f"tracker {tracker!r} is not HOST:PORT, as in 10.0.0.5:9190")
    return host, int(port)


def remote_devices(
    tracker: str, key: str, threads: int, target: Target, folder: Path
) -> tuple[list[Callable[[], Measurer]], str]:
    """A connector for each machine under a key, and the name of their CPU.

    Raises:
        TuningError: no tracker, no machine, or machines with different CPUs.
    """
    fleet = Fleet(tracker, key)
    machines = fleet.count()
    if machines == 0:
        raise TuningError(
            f"the tracker {tracker} knows no machine with key {key!r}\n"
            f"Start one there with: python -m tvm.exec.rpc_server --tracker {tracker} --key {key}"
        )
    cpu = _cpu_name(fleet, target, folder)
    return [lambda: RemoteMeasurer(fleet, threads, target, folder)] * machines, cpu


def _cpu_name(fleet: Fleet, target: Target, folder: Path) -> str:
    from subpc.passes.emit_remote_helpers import CPUINFO_BYTES, READ_CPUINFO, emit_read_cpuinfo

    library = _probe(folder / "cpuinfo", emit_read_cpuinfo(), READ_CPUINFO, target)
    session = fleet.request()
    text = _empty((CPUINFO_BYTES,), "uint8", session)
    _load(session, library)[READ_CPUINFO](text)
    lines = bytes(text.numpy()).split(b"\0")[0].decode(errors="replace").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "unknown CPU"


def _probe(stem: Path, function: Any, symbol: str, target: Target) -> Path:
    import tvm

    from subpc.passes.object_files import link_modules

    module = tvm.IRModule({symbol: function})
    return link_modules([module], target.tvm_target(), stem.with_suffix(".so"))


def _load(session: Any, library: Path) -> Any:
    # A name of its own each time: writing over a file that is loaded there would pull the code from
    # under the server.
    name = f"{next(_uploads)}-{library.name}"
    session.upload(str(library), name)
    return session.load_module(name)


def _empty(shape: tuple[int, ...], dtype: str, session: Any) -> Any:
    import tvm

    return tvm.runtime.empty(shape, dtype, device=session.cpu(0))


@dataclass
class _Loaded:
    """A library on the other machine, with everything that its entry point is called with."""

    call: Callable[[], None]
    times: Any
    outputs: list[Any]

    def run(self) -> Times:
        """One call; nanoseconds of each step."""
        self.call()
        clock = self.times.numpy().reshape(-1, 2)
        steps: Times = np.diff(clock[:, 0] * NANOSECONDS + clock[:, 1]).astype(float)
        return steps


class RemoteMeasurer:
    """Libraries on a machine of the fleet; every pair of libraries has a session of its own, which
    the server ends if it hangs."""

    def __init__(self, fleet: Fleet, threads: int, target: Target, folder: Path) -> None:
        self._fleet, self._threads, self._target, self._folder = fleet, threads, target, folder
        self._session: Any = None
        self._slots: dict[str, _Loaded] = {}

    def load(self, slot: str, library: Measured) -> None:
        """Put a library into slot "a", which begins a new session, or "b"."""
        if slot == "a" or self._session is None:
            self.close()
            self._session = self._fleet.request()
            self._guard(
                lambda: self._session.get_function("runtime.config_threadpool")(1, self._threads)
            )
        self._slots[slot] = self._guard(lambda: self._prepare(library))

    def _prepare(self, library: Measured) -> _Loaded:
        from subpc.passes.emit_remote_helpers import ZERO, emit_zero

        module = _load(self._session, library.library)
        infos = [
            TensorInfo(name="", shape=tuple(shape), dtype=dtype) for shape, dtype in library.inputs
        ]
        inputs = [self._filled(array) for array in random_inputs(infos)]
        outputs = [_empty(shape or (1,), dtype, self._session) for shape, dtype in library.outputs]
        blob = np.load(library.weights, mmap_mode="r", allow_pickle=False)
        weights = _empty(blob.shape, "float32", self._session)
        weights.copyfrom(np.ascontiguousarray(blob))
        space, steps = _empty((library.workspace,), "float32", self._session), len(library.layers)
        probe = _probe(
            self._folder / f"zero-{library.library.stem}",
            emit_zero(library.workspace),
            ZERO,
            self._target,
        )
        _load(self._session, probe)[ZERO](space)
        probe.unlink()
        times, entry = _empty((2 * steps + 2,), "int64", self._session), module[library.symbol]
        return _Loaded(
            call=lambda: entry(*inputs, *outputs, weights, space, times, 0, steps),
            times=times,
            outputs=outputs,
        )

    def _filled(self, array: Any) -> Any:
        tensor = _empty(array.shape or (1,), str(array.dtype), self._session)
        tensor.copyfrom(array.reshape(array.shape or (1,)))
        return tensor

    def difference(self) -> float:
        """How far the outputs of b are from those of a."""
        from subpc.tuning.measure_worker import deviation

        def compare() -> float:
            a, b = self._slots["a"], self._slots["b"]
            a.call()
            b.call()
            return max(
                deviation(x.numpy(), y.numpy()) for x, y in zip(a.outputs, b.outputs, strict=True)
            )

        return float(self._guard(compare))

    def pairs(self, count: int, timeout: float) -> tuple[Times, Times]:
        """(count, steps) nanoseconds of a and of b, which take turns."""
        from subpc.tuning.measure_worker import take_turns

        times: tuple[Times, Times] = self._guard(
            lambda: take_turns(self._slots["a"], self._slots["b"], count)
        )
        return times

    def _guard(self, work: Callable[[], Any]) -> Any:
        """Say whether the candidate or the machine is to blame when something fails."""
        try:
            return work()
        except Exception as error:
            before = last_line(error, 150)
            self.close()
            if TIMEOUT_ERROR in str(error):
                raise MeasureError(f"no answer within {SESSION_SECONDS} s") from error
            time.sleep(SETTLE_SECONDS)
            self._fleet.count()
            raise DeviceLost(
                f"a machine with key {self._fleet.key!r} was lost: {before}"
            ) from error

    def close(self) -> None:
        """End the session."""
        self._slots.clear()
        self._session = None
