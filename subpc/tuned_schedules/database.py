"""The tuning database: JSON lines that several tuners append to at a time, and that a cut or edited
line cannot spoil. record.py says what a line holds."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from subpc import files
from subpc.errors import ConfigError, TuningError
from subpc.tuned_schedules.record import (
    BEGIN,
    MAX_LINE,
    OK,
    Machine,
    Trial,
    Verdict,
    line_of,
    parse_line,
    workload_key,
)

MAX_FILE = 1 << 30
LOCK_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Database:
    """What a file holds. notes: what was ignored, with line numbers."""

    path: str
    trials: tuple[Trial, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    notes: tuple[str, ...] = ()


def check_writable(path: str | Path) -> None:
    """Raise ConfigError if records cannot be appended, or if the file is none of ours and would be
    spoilt by them.

    A database that is not there yet is made with its first record, so that a search that ends
    before it leaves nothing.
    """
    target, lock = Path(path), _lock_file(path)
    try:
        files.check_outputs([target, lock])
    except ConfigError as error:
        raise ConfigError(
            f"cannot write the database {str(error).removeprefix('cannot write ')}"
        ) from error
    _check_first_line(target)
    if lock.exists() and lock.stat().st_size:
        words = (
            f"cannot write the database {target}: {lock} would be its lock, and holds something"
            " else"
        )
        raise ConfigError(f"{words}; give the database another name")
    if not target.exists():
        return
    try:
        with target.open("ab"), _lock(target):
            pass
    except OSError as error:
        raise ConfigError(
            f"cannot write the database {target}: {error.strerror or error}; give a file that you"
            " may write to"
        ) from error


def _check_first_line(target: Path) -> None:
    """ConfigError unless the file is not there, empty, or begins with a record or with what a
    killed writer left of one."""
    if not target.exists():
        return
    with target.open("rb") as file:
        first = file.readline(MAX_LINE)
    begun = not first.endswith(b"\n") and (first.startswith(BEGIN) or BEGIN.startswith(first))
    try:
        if first and not begun:
            parse_line(first, f"{target}, line 1")
    except ValueError as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"{target} is no tuning database: its first line is {error}; records are not appended"
            " to it, give another file"
        ) from error


def append(path: str | Path, record: Trial | Verdict) -> None:
    """Add one record with one write, under a lock; a line that a killed writer left half written is
    ended first."""
    line, target = line_of(record), Path(path)
    try:
        with _lock(target):
            descriptor = os.open(target, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                size = os.fstat(descriptor).st_size
                cut = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
                os.write(descriptor, (b"\n" if cut else b"") + line)
            finally:
                os.close(descriptor)
    except OSError as error:
        raise TuningError(
            f"cannot write the database {target}: {error.strerror or error}; earlier records are"
            " kept"
        ) from error


def _lock_file(path: str | Path) -> Path:
    return Path(f"{path}.lock")


def _lock(target: Path) -> FileLock:
    try:
        lock = FileLock(_lock_file(target), timeout=LOCK_SECONDS)
        with lock:
            pass
    except Timeout as error:
        raise TuningError(
            f"another process has held {target}.lock for {LOCK_SECONDS:.0f} s; end it and try again"
        ) from error
    return lock


def read(path: str | Path, *, missing_ok: bool = False) -> Database:
    """Read a database; lines that make no sense are left out and noted.

    Raises:
        ConfigError: no such file, not readable, or written by a newer version.
    """
    try:
        with open(path, "rb", opener=files.only_regular) as file:
            if os.fstat(file.fileno()).st_size > MAX_FILE:
                raise ConfigError(
                    f"{path} has more than {MAX_FILE >> 20} MB; that is no tuning database"
                )
            data = file.read()
    except FileNotFoundError as error:
        if missing_ok:
            return Database(path=str(path))
        raise ConfigError(
            f"no such tuning database: {path}; `subpc tune MODEL --db {path}` makes one"
        ) from error
    except OSError as error:
        raise ConfigError(f"cannot read the tuning database {path}: {error.strerror}") from error
    lines = data.split(b"\n")
    records, notes = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            records.append(parse_line(line, f"{path}, line {number}"))
        except ValueError as error:
            if isinstance(error, ConfigError):
                raise
            what = "cut off, as by a killed writer" if number == len(lines) else str(error)
            notes.append(f"{path}, line {number}: {what}: ignored")
    trials = tuple(r for r in records if isinstance(r, Trial))
    verdicts = tuple(r for r in records if isinstance(r, Verdict))
    return Database(path=str(path), trials=trials, verdicts=verdicts, notes=tuple(notes))


def select(database: Database, machine: Machine, *, any_cpu: bool = False) -> Database:
    """The records that hold for a machine: same CPU, target, threads and versions. any_cpu: only
    the versions have to agree."""

    def holds(other: Machine) -> bool:
        same_versions = (other.subpc, other.tvm) == (machine.subpc, machine.tvm)
        return same_versions and (
            any_cpu
            or (other.cpu, other.target, other.threads)
            == (machine.cpu, machine.target, machine.threads)
        )

    return Database(
        path=database.path,
        trials=tuple(t for t in database.trials if holds(t.machine)),
        verdicts=tuple(v for v in database.verdicts if holds(v.machine)),
        notes=database.notes,
    )


def why_nothing(database: Database, machine: Machine) -> str:
    """Why no record of a database holds for a machine: the nearest miss."""
    others = [*(t.machine for t in database.trials), *(v.machine for v in database.verdicts)]
    if not others:
        return f"{database.path} holds no records"
    for name, what in (
        ("cpu", "CPU"),
        ("target", "target"),
        ("threads", "threads"),
        ("subpc", "subpc version"),
        ("tvm", "TVM version"),
    ):
        seen = {str(getattr(other, name)) for other in others}
        if str(getattr(machine, name)) not in seen:
            return (
                f"{database.path} was made for {what} {', '.join(sorted(seen)[:3])}; here it is"
                f" {getattr(machine, name)}"
            )
    return (
        f"{database.path} has no record for this combination of CPU, target, threads and versions"
    )


def best_trials(trials: Iterable[Trial]) -> dict[str, Trial]:
    """By workload key: the accepted schedule with the least time over the default."""
    best: dict[str, Trial] = {}
    for trial in trials:
        key = workload_key(trial.workload)
        if (
            trial.status == OK
            and trial.accepted
            and (key not in best or trial.ratio < best[key].ratio)
        ):
            best[key] = trial
    return best
