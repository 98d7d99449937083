"""Shares the time among the kinds of files, starts a worker for each, and starts it again behind a
file that ended or stopped it."""

import os
import selectors
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.seeds import write_seeds
from tests.fuzz.worker import finding_name

OUTCOMES = ("refused", "accepted", "ran", "leaked", "crashed", "hung")
ROOT = Path(__file__).parents[2]
CASE_SECONDS, START_SECONDS, END_SECONDS, MAX_FINDINGS = 60.0, 180.0, 10.0, 50


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A file that was neither refused nor accepted."""

    outcome: str
    path: Path | None


@dataclass(kw_only=True)
class Result:
    """What came of the files of one kind."""

    counts: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)

    def note(self, number: int, outcome: str, case: Path | None) -> None:
        """Count an outcome, and keep the file where it is a finding."""
        word = outcome.split(" ", 1)[0]
        self.counts[word] += 1
        if word in ("refused", "accepted") or len(self.findings) >= MAX_FINDINGS:
            return
        kept = None
        if case is not None and case.exists():
            kept = case.with_name(
                f"found-{case.parent.name.replace(' ', '-')}-{number}{case.suffix}"
            )
            shutil.copy(case, kept)
        self.findings.append(Finding(outcome=f"{outcome} (case {number})", path=kept))


def run(folder: Path, seconds: float, seed: str, only: str | None = None) -> dict[str, Result]:
    """{kind: result} after about `seconds` of mutated files; starting the workers comes on top."""
    seeds = write_seeds(folder)
    kinds = {kind: names for kind, names in seeds.items() if only in (None, kind)}
    return {
        kind: _fuzz(folder, kind, names, seconds / len(kinds), seed)
        for kind, names in kinds.items()
    }


def _fuzz(folder: Path, kind: str, names: list[str], seconds: float, seed: str) -> Result:
    result, number = Result(), 0
    while seconds > 0:
        number, spent = _one_worker(folder, kind, names, seed, number, seconds, result)
        seconds -= max(spent, 0.1)
    return result


def _one_worker(
    folder: Path,
    kind: str,
    names: list[str],
    seed: str,
    number: int,
    seconds: float,
    result: Result,
) -> tuple[int, float]:
    """Go on from case `number` until the time is over or the worker ends; the next case's number,
    and the seconds that were spent."""
    command = [
        sys.executable,
        "-m",
        "tests.fuzz.worker",
        kind,
        str(folder),
        seed,
        str(number),
        *names,
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    work = folder / f"work {kind}".replace("/", "")
    # Without a buffer, in which lines would wait while nothing more can be selected.
    worker = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
    )
    return follow(worker, work, number, seconds, result)


def follow(
    worker: subprocess.Popen[bytes], work: Path, number: int, seconds: float, result: Result
) -> tuple[int, float]:
    """Note what a worker says of each case in the folder `work`, from case `number` on; end it
    when the time is over or it does not answer. The next case's number, and the seconds spent."""
    assert worker.stdout is not None
    with selectors.DefaultSelector() as selector, worker.stdout:
        selector.register(worker.stdout, selectors.EVENT_READ)
        begin, limit = time.monotonic(), START_SECONDS
        try:
            while True:
                outcome = (
                    worker.stdout.readline().decode().strip() if selector.select(limit) else "hung"
                )
                if outcome == "ready":
                    begin, limit = time.monotonic(), CASE_SECONDS
                    continue
                if not outcome or outcome == "hung":
                    case = max(work.glob("case.*"), key=os.path.getmtime, default=None)
                    result.note(number, outcome or _end(worker), case)
                    return number + 1, time.monotonic() - begin
                case = next(work.glob(finding_name(number, ".*")), None)
                result.note(number, outcome.split(" ", 1)[1], case)
                number += 1
                if time.monotonic() - begin > seconds:
                    return number, seconds
        finally:
            worker.kill()
            worker.wait()


def _end(worker: subprocess.Popen[bytes]) -> str:
    """How a worker ended that says nothing more."""
    try:
        return f"crashed with {worker.wait(END_SECONDS)}"
    except subprocess.TimeoutExpired:
        return "hung while it ended"
