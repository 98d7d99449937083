"""Tuning on machines behind TVM's RPC tracker: a tracker and two servers on this machine, of which
one is killed."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from subpc.errors import ConfigError, TuningError
from subpc.machine.cpu import cpu_name
from subpc.tuned_schedules import database as tuning_db
from subpc.tuned_schedules.record import OK, workload_key
from subpc.tuning import measure_remote
from subpc.tuning.measure_remote import Fleet
from subpc.tuning.report import TuneProgress
from subpc.tuning.tune import tune
from tests.subpc.tuning.schedules import example, small_net

pytest.importorskip("tornado", reason="TVM's tracker needs it")
KEY, START_SECONDS = "test-cpu", 120.0
FIRST_PORT = 9190


@dataclass
class Farm:
    """A tracker and its servers, each a process with children."""

    address: str
    tracker: "subprocess.Popen[bytes]"
    servers: "list[subprocess.Popen[bytes]]"

    def wait_for(self, count: int) -> None:
        """Until so many servers are registered."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            try:
                if Fleet(self.address, KEY).count() == count:
                    return
            except TuningError:
                pass
            time.sleep(0.2)
        raise AssertionError(f"{count} servers did not register")


def start(module: str, *options: str) -> "subprocess.Popen[bytes]":
    # TVM's server has a pool of its own, which takes half of the CPUs unless told otherwise.
    environment = {**os.environ, "PYTHONSAFEPATH": "1", "TVM_NUM_THREADS": "2"}
    command = [sys.executable, "-m", f"tvm.exec.{module}", "--host", "127.0.0.1", *options]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )


def kill(process: "subprocess.Popen[bytes]") -> None:
    """End a process and its children."""
    family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    for member in family:
        member.kill()
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


@pytest.fixture
def farm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Farm]:
    # What a request that met the killed server waits for, at worst.
    monkeypatch.setattr(measure_remote, "SESSION_SECONDS", 60)
    port = FIRST_PORT + os.getpid() % 400 * 10
    tracker = start("rpc_tracker", "--port", str(port), "--port-end", str(port + 1), "--silent")
    address = f"127.0.0.1:{port}"
    options = ("--tracker", address, "--key", KEY, "--silent")
    servers = [
        start("rpc_server", "--port", str(p), "--port-end", str(p + 3), *options)
        for p in (port + 2, port + 6)
    ]
    made = Farm(address=address, tracker=tracker, servers=servers)
    try:
        made.wait_for(2)
        yield made
    finally:
        for process in (*servers, tracker):
            kill(process)


@pytest.mark.slow
def test_a_killed_server_loses_nothing(farm: Farm, tmp_path: Path) -> None:
    path, killed = tmp_path / "tune.jsonl", []

    def watch(now: TuneProgress) -> None:
        if now.trials >= 3 and not killed:
            kill(farm.servers[0])
            killed.append(now.trials)

    report = tune(
        small_net(),
        example(),
        database=path,
        budget="5m",
        trials=12,
        threads=1,
        tracker=farm.address,
        device_key=KEY,
        progress=watch,
    )
    assert killed
    trials = tuning_db.read(path).trials
    assert report.trials == len(trials) == 12
    assert {t.status for t in trials} == {OK}
    assert {t.machine.cpu for t in trials} == {cpu_name()}
    pairs = {(workload_key(t.workload), workload_key(t.choice)) for t in trials}
    assert len(pairs) == 12
    assert len(tuning_db.read(path).verdicts) == 1


@pytest.mark.slow
def test_a_lost_tracker_ends_the_search_and_keeps_the_records(farm: Farm, tmp_path: Path) -> None:
    path, seen = tmp_path / "tune.jsonl", []

    def watch(now: TuneProgress) -> None:
        if tuning_db.read(path, missing_ok=True).trials and not seen:
            kill(farm.tracker)
            seen.append(now)

    with pytest.raises(TuningError, match="cannot be reached") as error:
        tune(
            small_net(),
            example(),
            database=path,
            budget="5m",
            threads=1,
            tracker=farm.address,
            device_key=KEY,
            progress=watch,
        )
    assert len(str(error.value).splitlines()) == 2
    assert seen
    assert tuning_db.read(path).trials


@pytest.mark.slow
def test_a_key_that_nobody_has(farm: Farm, tmp_path: Path) -> None:
    with pytest.raises(TuningError, match="no machine with key 'other'") as error:
        tune(
            small_net(),
            example(),
            database=tmp_path / "db",
            budget="1m",
            tracker=farm.address,
            device_key="other",
        )
    assert len(str(error.value).splitlines()) == 2


def test_trackers_that_are_none() -> None:
    with pytest.raises(TuningError, match=r"cannot be reached .*records that were made are kept"):
        Fleet("127.0.0.1:1", KEY).count()
    for address in ("localhost", "host:port", ":80", "host:99999"):
        with pytest.raises(ConfigError, match="is not HOST:PORT"):
            Fleet(address, KEY)
