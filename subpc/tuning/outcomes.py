"""Rounds of candidates, and what came of each."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from subpc.tuning.judge import Judgement

if TYPE_CHECKING:
    from subpc.schedules.workload import Choice

# Runs of each library between two looks at the clock and the judgement.
BATCH = 4


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One candidate: judged, or failed."""

    choice: "Choice"
    judgement: Judgement | None = None
    pairs: int = 0
    microseconds: float = 0.0
    error: str = ""

    @property
    def faster(self) -> bool:
        """Whether it is certainly faster than the best so far."""
        return self.judgement is not None and self.judgement.faster


@dataclass(frozen=True, kw_only=True)
class CandidateRound:
    """Candidates by workload key, and the schedules that they compete with."""

    candidates: "dict[str, Choice]"
    best: "dict[str, Choice]"
    ratios: dict[str, float]
