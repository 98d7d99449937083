"""Tuned schedules for a compile: from a database that `subpc tune` wrote, or from the one that
comes with the package."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subpc.errors import ConfigError
from subpc.machine.cpu import cpu_name
from subpc.machine.target import Target
from subpc.tuned_schedules import database as tuning_db
from subpc.tuned_schedules.database import Database, best_trials
from subpc.tuned_schedules.record import Machine, network_key

if TYPE_CHECKING:
    from subpc.schedules.isa import VectorIsa
    from subpc.schedules.workload import Choice, ConvWorkload

AUTO, OFF = "auto", "off"
# One file a CPU; all of them are read, and what was not measured on this CPU is left out.
SHIPPED = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class TuningFact:
    """What became of one network. layers: how many convolutions got a tuned schedule; note: one
    line for the report, or ""."""

    layers: int = 0
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """Records that hold for a compile. notes: what was ignored in the file, with line numbers."""

    database: Database = field(default_factory=lambda: Database(path=""))
    notes: tuple[str, ...] = ()
    quiet: bool = True

    def choose(
        self, workloads: "Mapping[str, ConvWorkload]", isa: "VectorIsa", sparse: str
    ) -> "tuple[dict[str, Choice], TuningFact]":
        """Schedules by layer name for a network's convolutions.

        If the whole network was raced, exactly what stood the race; else the best record of each
        workload.
        """
        verdict = {v.network: v for v in self.database.verdicts}.get(
            network_key(w.key for w in workloads.values())
        )
        known: dict[str, Any] = (
            verdict.schedules
            if verdict
            else {k: t.choice for k, t in best_trials(self.database.trials).items()}
        )
        choices, refused = {}, []
        for layer, workload in workloads.items():
            choice = known.get(workload.key)
            if choice is None:
                continue
            reason = why_not(choice, workload, isa, sparse)
            if reason:
                refused.append(f"{layer}: {reason}")
            else:
                choices[layer] = choice
        if verdict:
            race = f"{verdict.speedup:.3f}x over untuned when the whole network was raced"
        else:
            race = "the whole network was not raced: let `subpc tune` run to its end for that"
        parts = (
            [
                f"tuning: {len(choices)} of {len(workloads)} convolutions from"
                f" {self.database.path}, {race}"
            ]
            if choices
            else []
        )
        parts += (
            [
                f"tuning: ignored for {refused[0]}"
                + (f", and {len(refused) - 1} more" if len(refused) > 1 else "")
            ]
            if refused
            else []
        )
        if not parts and not self.quiet:
            parts = [
                f"tuning: {self.database.path} knows none of the {len(workloads)} convolutions"
            ]
        return choices, TuningFact(layers=len(choices), note="; ".join(parts))


def why_not(
    choice: "Choice", workload: "ConvWorkload", isa: "VectorIsa", sparse: str = "auto"
) -> str:
    """Why a recorded schedule cannot be used, "" if it can."""
    from subpc.schedules.family import ignores_pattern
    from subpc.schedules.search_space import is_valid

    if not is_valid(choice, workload, isa):
        return f"{str(choice)[:120]} is no valid schedule for it"
    if sparse == "always" and ignores_pattern(choice):
        return "the record wants a dense kernel, sparse='always' does not"
    return ""


def find_tuning(
    tuning: str | Path | None,
    target: Target,
    threads: int,
    versions: Mapping[str, str],
    *,
    any_cpu: bool = False,
) -> Tuned:
    """The records that a compile may use.

    Raises:
        ConfigError: no such database, one of a newer version, or nothing in it that holds for this
            machine.
    """
    if tuning is None or str(tuning) == OFF:
        return Tuned()
    names = {"subpc": versions.get("subpc", ""), "tvm": versions.get("apache-tvm", "")}
    machine = Machine(cpu=cpu_name(), target=str(target), threads=threads, **names)
    if str(tuning) == AUTO:
        return Tuned(database=_shipped(machine))
    database = tuning_db.read(tuning)
    matching = tuning_db.select(database, machine, any_cpu=any_cpu)
    if not matching.trials and not matching.verdicts:
        hint = "" if any_cpu else "; --tuning-any-cpu uses it nevertheless"
        raise ConfigError(
            f"{tuning_db.why_nothing(database, machine)}{hint}\nTune here with: subpc tune MODEL"
            " --db FILE"
        )
    return Tuned(database=matching, notes=database.notes, quiet=False)


@functools.cache  # files of the package, which a process reads once
def _shipped(machine: Machine) -> Database:
    """What the package's own files say about this machine."""
    files = [
        tuning_db.select(tuning_db.read(path), machine) for path in sorted(SHIPPED.glob("*.jsonl"))
    ]
    trials, verdicts = (t for f in files for t in f.trials), (v for f in files for v in f.verdicts)
    return Database(
        path="the schedules that come with subpc", trials=tuple(trials), verdicts=tuple(verdicts)
    )
