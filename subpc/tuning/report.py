"""The progress of a search, and its result."""

from collections.abc import Callable
from dataclasses import dataclass

from subpc.records import Record


@dataclass(frozen=True, kw_only=True)
class TuneProgress:
    """How far a search is. done: layers (equal ones once) that are done, of `layers`; gain: untuned
    over tuned time so far."""

    what: str
    seconds_left: float
    done: int
    layers: int
    trials: int
    failures: int
    gain: float


@dataclass(frozen=True, kw_only=True)
class TuneReport(Record):
    """What a search brought.

    speedup: untuned over tuned time of the whole network, raced at the end; 1.0 where tuning did
    not help. workloads: distinct layers;
    tuned: those with another schedule than the default; dropped: those that helped alone but not in
    the network. trials: measured in this call; known: found in the database. untuned_ms, tuned_ms:
    medians of the race.
    """

    network: str
    database: str
    speedup: float
    untuned_ms: float
    tuned_ms: float
    workloads: int
    tuned: int
    dropped: int
    trials: int
    known: int
    failures: int
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """One line: what tuning brought on the whole network."""
        if self.tuned == 0:
            return (
                "untuned stays: no schedule made the whole network certainly faster"
                f" ({self.untuned_ms:.2f} ms)"
            )
        return (
            f"{self.speedup:.3f}x over untuned on the whole network ({self.untuned_ms:.2f} ms ->"
            f" {self.tuned_ms:.2f} ms), {self.tuned} of {self.workloads} distinct layers tuned"
        )


ShowProgress = Callable[[TuneProgress], None]
