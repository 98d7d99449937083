"""What one line of the tuning database says: a "trial" how fast one schedule was for one workload,
a "network" which schedules stood the race of a whole network."""

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from subpc.errors import ConfigError

FORMAT = 1


# A trial is under 2 KB, a network of a thousand layers under 1 MB; what is longer was not written
# by us.
MAX_LINE = 4 << 20


# What every line begins with.
BEGIN = b'{"format":'


OK, FAILED = "ok", "failed"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a measurement holds for. target: the canonical target string."""

    cpu: str
    target: str
    threads: int
    subpc: str
    tvm: str


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One schedule that was measured. ratio: its time over the default schedule's; accepted: it was
    certainly faster than the best then.

    microseconds: of one call in the network; pairs: how often it and the best were run in turn;
    error: why it failed.
    """

    workload: dict[str, Any]
    choice: dict[str, Any]
    machine: Machine
    status: str = OK
    ratio: float = 1.0
    microseconds: float = 0.0
    pairs: int = 0
    accepted: bool = False
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The race of a whole network at the end. schedules: workload key to choice, of all that
    helped; speedup: untuned over tuned time."""

    network: str
    machine: Machine
    schedules: dict[str, Any]
    speedup: float
    dropped: int = 0


def workload_key(workload: dict[str, Any]) -> str:
    """The canonical line that workloads are compared by."""
    return json.dumps(workload, sort_keys=True, separators=(",", ":"))


def network_key(keys: Iterable[str]) -> str:
    """A short name for a network: its workloads, each as often as it occurs."""
    return hashlib.sha256("\n".join(sorted(keys)).encode()).hexdigest()[:32]


def line_of(record: Trial | Verdict) -> bytes:
    """The record as a line of a database."""
    kind = "trial" if isinstance(record, Trial) else "network"
    data = {"format": FORMAT, "kind": kind, **asdict(record)}
    return json.dumps(data, separators=(",", ":")).encode() + b"\n"


def parse_line(line: bytes, where: str) -> Trial | Verdict:
    """The record in a line; `where` it stands, for messages.

    Raises:
        ValueError: it is none.
        ConfigError: it comes from a newer version.
    """
    from subpc.schedules.families import completed

    if len(line) > MAX_LINE:
        raise ValueError("too long for a record")
    try:
        data = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError("not JSON") from error
    if not isinstance(data, dict) or type(data.get("format")) is not int:
        raise ValueError("not a tuning record")
    if data["format"] > FORMAT:
        raise ConfigError(
            f"{where}: format {data['format']} was written by a newer subpc; this one reads up to"
            f" {FORMAT}: update it"
        )
    kind, kinds = data.get("kind"), {"trial": Trial, "network": Verdict}
    if not isinstance(kind, str) or kind not in kinds:
        raise ValueError(f"unknown kind {kind!r:.40}")
    body = {name: value for name, value in data.items() if name not in ("format", "kind")}
    body["machine"] = _record(Machine, body.get("machine"))
    record: Trial | Verdict = _record(kinds[kind], body)
    _check(record)
    if isinstance(record, Trial):
        return replace(record, choice=completed(record.choice))
    whole = {
        key: completed(choice) if isinstance(choice, dict) else choice
        for key, choice in record.schedules.items()
    }
    return replace(record, schedules=whole)


_TYPES: dict[Any, tuple[type, ...]] = {
    str: (str,),
    int: (int,),
    bool: (bool,),
    float: (int, float),
    Machine: (Machine,),
}


def _record(kind: type[Any], data: Any) -> Any:
    """A dataclass from JSON values whose types are those of its fields."""
    names = {f.name for f in fields(kind)}
    if not isinstance(data, dict) or set(data) != names:
        raise ValueError(f"keys of a {kind.__name__.lower()} are missing or unknown")
    for field in fields(kind):
        value, hint = data[field.name], field.type
        accepted = _TYPES.get(hint, (dict,))
        if not isinstance(value, accepted) or (isinstance(value, bool) and hint is not bool):
            raise ValueError(f"{field.name} is {value!r:.40}")
    return kind(**data)


def _check(record: Trial | Verdict) -> None:
    number = record.ratio if isinstance(record, Trial) else record.speedup
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"a ratio of {number}")
    if isinstance(record, Trial) and record.status not in (OK, FAILED):
        raise ValueError(f"status is {record.status!r:.40}")
