"""What a comparison of engines found."""

import json
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from subpc.errors import ConfigError
from subpc.files import only_regular
from subpc.library.report import FLOATS
from subpc.machine.timing import Timing
from subpc.records import Record

# A comparison of a few engines; a larger file is something else.
MAX_FILE = 1 << 20
# Largest difference of two engines' outputs, as a share of the output's range, that still counts as
# the same answer in float32.
AGREEMENT = 1e-3
# The same where one of the two rounds to 8 bits: each layer adds to the difference, random weights
# most of all.
AGREEMENT_OF_CODES = 0.25


@dataclass(frozen=True, kw_only=True)
class EngineResult(Record):
    """One engine's times, or the reason why it has none.

    precision: what it computes in, "float32" or "int8"; first_answer_ms: from the start of its
    imports to the first output; difference: largest deviation from subpc's output as a share of
    the output's range.
    """

    engine: str
    version: str
    precision: str = FLOATS
    timing: Timing | None = None
    first_answer_ms: float = 0.0
    peak_mb: float = 0.0
    difference: float | None = None
    failure: str = ""


@dataclass(frozen=True, kw_only=True)
class BenchReport(Record):
    """All engines side by side.

    headline: sparsity, N, precision, tuned or not; idle_cpus: the fewest that were free at the
    start of a round.
    """

    headline: str
    cpu: str
    threads: int
    shapes: tuple[tuple[int, ...], ...]
    runs: int
    warmup: int
    rounds: int
    idle_cpus: float
    engines: tuple[EngineResult, ...]

    @property
    def ours(self) -> EngineResult:
        """subpc's own result."""
        return self.engines[0]

    @property
    def best_rival(self) -> EngineResult | None:
        """The fastest other engine, by median."""
        rivals = [
            (e.timing.p50, e)
            for e in self.engines
            if e.timing is not None and not e.engine.startswith("subpc")
        ]
        return min(rivals, key=lambda pair: pair[0])[1] if rivals else None

    def ratio(self, engine: EngineResult) -> float | None:
        """The engine's median time / subpc's: above 1, subpc is faster; below 1, it is slower."""
        if engine.timing is None or self.ours.timing is None:
            return None
        return engine.timing.p50 / self.ours.timing.p50

    def agrees(self, engine: EngineResult) -> bool:
        """Whether its output is subpc's, as far as what both compute in allows."""
        exact = engine.precision == self.ours.precision == FLOATS
        limit = AGREEMENT if exact else AGREEMENT_OF_CODES
        return engine.difference is not None and engine.difference <= limit

    def answer(self, engine: EngineResult) -> str:
        """How its output compares with subpc's, in a word or two."""
        if engine is self.ours:
            return ""
        if not self.agrees(engine):
            return "DIFFERS"
        assert engine.difference is not None
        return "same" if engine.difference <= AGREEMENT else f"{engine.difference:.1%} off"

    @property
    def warning(self) -> str:
        """Why the times are not to be trusted; empty if nothing speaks against them."""
        if self.idle_cpus > 0.85 * self.threads:
            return ""
        text = f"only {self.idle_cpus:.1f} CPUs were free for {self.threads} threads"
        return (
            f"{text}: other programs were running, so these times are unreliable; repeat on a quiet"
            " machine"
        )

    @property
    def verdict(self) -> str:
        """The comparison in one line; whether faster or slower."""
        rival = self.best_rival
        ratio = self.ratio(rival) if rival else None
        if rival is None or ratio is None:
            return "nothing to compare with"
        word = "faster" if ratio >= 1 else "SLOWER"
        return (
            f"subpc is {ratio if ratio >= 1 else 1 / ratio:.2f} times {word} than the fastest other"
            f" engine ({rival.engine})"
        )


def read_bench(path: Path) -> BenchReport:
    """What `subpc bench --json` printed; ConfigError for anything else."""
    try:
        with open(path, encoding="utf-8", opener=only_regular) as file:
            if os.fstat(file.fileno()).st_size > MAX_FILE:
                raise ValueError("it is larger than any comparison")
            data = json.load(file)
        if (
            not isinstance(data, dict)
            or not isinstance(data.get("engines"), list)
            or not data["engines"]
        ):
            raise ValueError("it lists no engines")
        engines = [_stored(EngineResult, engine) for engine in data["engines"]]
        return BenchReport.from_dict({**_stored(BenchReport, data), "engines": engines})
    except (OSError, ValueError, RecursionError) as error:  # ConfigError is a ValueError
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"cannot read {path}: {str(reason)[:200]}; write it with: subpc bench model.so --json >"
            f" {path.name}"
        ) from error


def _stored(record: type[Record], data: Any) -> dict[str, Any]:
    """The fields of a record, without what --json adds to them."""
    if not isinstance(data, dict):
        raise ValueError(f"{record.__name__} is no object")
    return {f.name: data[f.name] for f in fields(record) if f.name in data}  # type: ignore[arg-type]
