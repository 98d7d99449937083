"""One search for one network: its layers, what is known of their schedules, libraries with them,
and the records."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subpc.tuned_schedules import database as tuning_db
from subpc.tuned_schedules.database import best_trials
from subpc.tuned_schedules.record import FAILED, OK, Machine, Trial, workload_key
from subpc.tuning.build_candidates import Builder
from subpc.tuning.layers import TunedLayer, choices_of, find_layers
from subpc.tuning.measure import Measured
from subpc.tuning.outcomes import BATCH, Outcome
from subpc.tuning.propose import nearest, variations

if TYPE_CHECKING:
    from subpc.schedules.workload import Choice, ConvWorkload

# Answers may take this many times as long as the untuned network, and a grace for a busy machine.
SLOWEST, GRACE_SECONDS = 50.0, 20.0


class TuningSession:
    """What a search knows. It measures nothing itself; kept: how many libraries of best schedules
    stay, for those who still read them."""

    def __init__(
        self, builder: Builder, machine: Machine, database: Path, deadline: float, *, kept: int
    ) -> None:
        self.builder, self.machine, self.database, self.deadline = (
            builder,
            machine,
            database,
            deadline,
        )
        self.started, self.trials = time.monotonic(), 0
        self.layers, self.joinable = find_layers(builder.model, builder.target.isa)
        self.by_key = {layer.workload.key: layer for layer in self.layers}
        self.known = self._recall()
        self.total_ns = 0.0  # the untuned network's time, once it has been measured
        self._kept = kept
        self._baselines: dict[str, Measured] = {}
        # The best schedules before joint changes were tried.
        self.apart: dict[str, Choice] | None = None

    def _recall(self) -> int:
        """Tell the searches what the database knows; returns how many records that is."""
        records = tuning_db.select(tuning_db.read(self.database, missing_ok=True), self.machine)
        for trial in records.trials:
            layer = self.by_key.get(workload_key(trial.workload))
            if layer is not None:
                layer.search.tell(trial.choice, trial.ratio if trial.status == OK else None)
                layer.trials += 1
        best = best_trials(records.trials)
        for key, layer in self.by_key.items():
            if key in best and best[key].choice in layer.search.space:
                layer.best, layer.ratio = best[key].choice, best[key].ratio
            layer.search.tell(layer.default, 1.0)
            others = [
                (other, trial.choice)
                for k, trial in best.items()
                if k != key and (other := _workload(trial.workload))
            ]
            start = nearest(layer.workload, others, layer.search.space)
            layer.search.enqueue(
                [
                    *([start] if start is not None else []),
                    *variations(layer.default, layer.search.space),
                ]
            )
        return sum(1 for trial in records.trials if workload_key(trial.workload) in self.by_key)

    def baseline(self, choices: "Mapping[str, Choice]") -> Measured:
        """The library with these schedules, the latest kept for the next round."""
        key = workload_key(dict(choices))
        if key not in self._baselines:
            library = self.builder.build(choices)
            for old in list(self._baselines)[: -self._kept]:
                self.builder.discard(self._baselines.pop(old))
            self._baselines[key] = library
        return self._baselines[key]

    def record(self, layer: TunedLayer, outcome: Outcome, best_ratio: float) -> None:
        """Append a measurement to the database, and remember what it says; best_ratio: of what it
        was raced against."""
        judged = outcome.judgement
        ratio = best_ratio * judged.ratio if judged else 1.0
        accepted = bool(judged and judged.faster and ratio < layer.ratio)
        trial = Trial(
            workload=layer.workload.to_dict(),
            choice=dict(outcome.choice),
            machine=self.machine,
            status=OK if judged else FAILED,
            ratio=ratio,
            microseconds=outcome.microseconds,
            pairs=outcome.pairs,
            accepted=accepted,
            error=outcome.error,
        )
        tuning_db.append(self.database, trial)
        layer.search.tell(outcome.choice, ratio if judged else None)
        layer.trials, layer.since_gain = layer.trials + 1, 0 if accepted else layer.since_gain + 1
        layer.failures += judged is None
        if accepted:
            layer.best, layer.ratio = outcome.choice, ratio

    def choices(self, schedules: "Mapping[str, Choice]") -> "dict[str, Choice]":
        """Schedules by workload key -> by layer name, defaults left out."""
        return choices_of(self.layers, schedules)

    @property
    def timeout(self) -> float:
        """Seconds in which a batch of pairs has to be done."""
        return GRACE_SECONDS + SLOWEST * 4 * BATCH * self.total_ns / 1e9


def _workload(data: "dict[str, Any]") -> "ConvWorkload | None":
    from subpc.schedules.workload import ConvWorkload

    return ConvWorkload.from_dict(data)
