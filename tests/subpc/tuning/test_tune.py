"""The tuner on a small network: records, resuming after any end, bad candidates, the verdict, and
compiling with it."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from subpc.compiler.compile_model import compile
from subpc.errors import CompileError, ConfigError
from subpc.machine.target import parse_target
from subpc.tuned_schedules import database as tuning_db
from subpc.tuned_schedules.choose import SHIPPED
from subpc.tuned_schedules.record import Verdict, network_key, workload_key
from subpc.tuning.build_candidates import Builder
from subpc.tuning.measure import LocalMeasurer, Measured, MeasureError
from subpc.tuning.outcomes import CandidateRound
from subpc.tuning.rounds import Tuner
from subpc.tuning.tune import parse_budget, tune
from subpc.versions import versions
from tests.subpc.tuning.schedules import NATIVE, example, machine, network, small_net, write_choices

THREADS = 1


def tuner(builder: Builder, database: Path) -> Tuner:
    return Tuner(
        builder,
        [lambda: LocalMeasurer(THREADS)],
        machine(THREADS),
        database,
        time.monotonic() + 600,
    )


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90.0), ("10m", 600.0), ("1.5h", 5400.0)])
def test_budgets(text: str, seconds: float) -> None:
    assert parse_budget(text) == seconds


@pytest.mark.parametrize(
    "text", ["0m", "10", "", "m", "-3s", "infm", "nanh", "0.5s", "ten minutes"]
)
def test_budgets_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match="accepted: 90s, 10m"):
        parse_budget(text)


@pytest.mark.slow
def test_tuning_records_resumes_and_compiles(builder: Builder, tmp_path: Path) -> None:
    path = tmp_path / "tune.jsonl"
    first = tuner(builder, path)
    first.search(6, None)
    report = first.finish(None)
    first.close()
    assert report.trials == 6
    records = tuning_db.read(path)
    assert len(records.trials) == 6
    assert records.notes == ()
    assert [v.network for v in records.verdicts] == [report.network]
    assert report.speedup >= 1.0
    again = tuner(builder, path)
    again.search(4, None)
    again.close()
    assert again.known == 6
    measured = [
        (workload_key(t.workload), workload_key(t.choice)) for t in tuning_db.read(path).trials
    ]
    assert len(set(measured)) == 10, "a schedule was measured twice"
    compiled = compile(small_net(), example(), sparse="always", tuning=path, threads=THREADS)
    with torch.no_grad():
        torch.testing.assert_close(
            compiled(example()), small_net()(example()), rtol=1e-3, atol=1e-4
        )


@pytest.mark.slow
@pytest.mark.skipif(not parse_target(NATIVE).isa.dot, reason="this CPU does not multiply bytes")
def test_schedules_of_integers_are_found_and_used_for_integers_alone(tmp_path: Path) -> None:
    path = tmp_path / "tune.jsonl"
    options = {"database": path, "budget": "200s", "trials": 6, "threads": THREADS}
    report = tune(small_net(), example(), precision="int8", **options)
    assert (report.trials, report.failures) == (6, 0)
    trials = tuning_db.read(path).trials
    assert {trial.workload["precision"] for trial in trials} == {"int8"}
    assert {str(trial.choice["family"]) for trial in trials} <= {"quads", "grouped_i8"}
    with_floats = compile(small_net(), example(), tuning=path, threads=THREADS)
    assert any("knows none of the" in note for note in with_floats.report.metadata.notes)


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_a_search_that_was_ended_goes_on_where_it_was(tmp_path: Path, end: signal.Signals) -> None:
    torch.export.save(torch.export.export(small_net(), (example(),)), tmp_path / "net.pt2")
    path = tmp_path / "tune.jsonl"
    script = "import sys; from subpc.cli.main import main; main(sys.argv[1:])"
    command = [
        sys.executable,
        "-c",
        script,
        "tune",
        str(tmp_path / "net.pt2"),
        "--db",
        str(path),
        "--budget",
        "5m",
        "--threads",
        "1",
    ]
    environment = {**os.environ, "PYTHONSAFEPATH": "1", "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and len(tuning_db.read(path, missing_ok=True).trials) < 4:
        assert process.poll() is None, "the search ended by itself"
        time.sleep(0.1)
    process.send_signal(end)
    assert process.wait() == (-signal.SIGKILL if end == signal.SIGKILL else 130)
    before = tuning_db.read(path)
    assert len(before.trials) >= 4
    report = tune(tmp_path / "net.pt2", database=path, budget="5m", trials=2, threads=THREADS)
    assert report.known == len(before.trials)
    after = tuning_db.read(path)
    assert len(after.trials) == len(before.trials) + 2
    pairs = [(workload_key(t.workload), workload_key(t.choice)) for t in after.trials]
    assert len(set(pairs)) == len(pairs)


class Breaks(LocalMeasurer):
    """A measuring process that crashes, hangs or errs whenever slot b holds a library with a bad
    kernel."""

    def __init__(self, how: str, bad: str) -> None:
        super().__init__(THREADS)
        self.how, self.bad, self.broken = how, bad, False

    def load(self, slot: str, library: Measured) -> None:
        super().load(slot, library)
        if slot == "b":
            self.broken = self.bad in library.weights.with_suffix(".mark").read_text()
            if self.broken and self.how != "wrong":
                assert self._process is not None
                self._process.send_signal(signal.SIGSEGV if self.how == "crash" else signal.SIGSTOP)

    def difference(self) -> float:
        if self.broken and self.how == "hang":
            return float(self._ask({"do": "compare"}, timeout=1.0)["difference"])
        return 1.0 if self.broken and self.how == "wrong" else super().difference()


class Marking(Builder):
    """Leaves a note beside each library that says which schedules it has."""

    def build(self, choices):  # type: ignore[no-untyped-def]
        library = super().build(choices)
        library.weights.with_suffix(".mark").write_text(repr(sorted(choices.items())))
        return library


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "words"),
    [("crash", "signal 11"), ("hang", "no answer within"), ("wrong", "wrong results")],
)
def test_bad_candidates_end_no_search(tmp_path: Path, how: str, words: str) -> None:
    builder = Marking(network(), parse_target(NATIVE), tmp_path, 1)
    search = tuner(builder, tmp_path / "db")
    keys = [layer.workload.key for layer in search.layers[:3]]
    candidates = {key: search.by_key[key].search.space[-1] for key in keys}
    culprit = search.by_key[keys[1]].layers[0]
    device = search.final_device()
    device.close()
    device._connect = lambda: Breaks(how, repr((culprit, candidates[keys[1]])))
    best = {layer.workload.key: layer.best for layer in search.layers}
    outcomes = device.measure(
        CandidateRound(candidates=candidates, best=best, ratios=dict.fromkeys(keys, 1.0))
    )
    search.close()
    builder.close()
    assert words in outcomes[keys[1]].error
    assert [key for key, outcome in outcomes.items() if outcome.judgement is None] == [keys[1]]


@pytest.mark.parametrize("how", ["raises", "aborts"])
def test_a_kernel_that_does_not_compile_fails_alone(builder: Builder, how: str) -> None:
    class Bad:
        family = "bad kernel"

        def __repr__(self) -> str:
            return how

        def prim_func(self, symbol: str, isa: object) -> None:
            if how == "aborts":
                os.abort()
            raise ValueError("no such tile")

    with pytest.raises(CompileError, match="bad kernel"):
        builder.objects.compile({Bad(): "a layer"})  # type: ignore[dict-item]
    assert builder.build({}).library.exists()


def test_a_measuring_process_is_started_again_after_a_crash() -> None:
    measurer = LocalMeasurer(THREADS)
    with pytest.raises(MeasureError, match="measuring process ended"):
        measurer.pairs(1, 10.0)  # nothing is loaded
    with pytest.raises(MeasureError, match="measuring process ended"):
        measurer.pairs(1, 10.0)
    measurer.close()


def test_the_verdict_rules_over_single_records(tmp_path: Path) -> None:
    model, path = network(), tmp_path / "db"
    layers = list(model.workloads)
    choices = {
        layers[0]: {
            "family": "direct",
            "rows": 1,
            "columns": 15,
            "vectors": 1,
            "pixels_outer": True,
            "prefetch": 0,
        }
    }
    write_choices(path, model, choices, machine())
    compiled = compile(small_net(), example(), sparse="always", tuning=path, threads=2)
    assert compiled.report.metadata.tuned
    assert ", tuned, " in compiled.report.headline
    assert any("was not raced" in note for note in compiled.report.metadata.notes)
    network_name = network_key(w.key for w in model.workloads.values())
    tuning_db.append(
        path, Verdict(network=network_name, machine=machine(), schedules={}, speedup=1.0)
    )
    untuned = compile(small_net(), example(), sparse="always", tuning=path, threads=2)
    assert ", untuned, " in untuned.report.headline


def test_databases_that_come_with_the_package_are_of_this_version() -> None:
    for path in SHIPPED.glob("*.jsonl"):
        found = tuning_db.read(path)
        assert found.notes == ()
        assert {r.machine.subpc for r in (*found.trials, *found.verdicts)} == {
            versions()["subpc"]
        }, path


def test_records_that_do_not_hold_are_refused_or_named(tmp_path: Path) -> None:
    model, path = network(), tmp_path / "db"
    layer = next(iter(model.workloads))
    bad = {
        layer: {
            "family": "direct",
            "rows": 77,
            "columns": 1,
            "vectors": 1,
            "pixels_outer": True,
            "prefetch": 0,
        }
    }
    write_choices(path, model, bad, machine())
    compiled = compile(small_net(), example(), sparse="always", tuning=path, threads=2)
    assert any("is no valid schedule" in note for note in compiled.report.metadata.notes)
    assert not compiled.report.metadata.tuned
    other = tmp_path / "other"
    write_choices(other, model, bad, replace(machine(), cpu="Another CPU"))
    with pytest.raises(
        ConfigError, match=r"made for CPU Another CPU; here it is .*; --tuning-any-cpu"
    ):
        compile(small_net(), example(), tuning=other, threads=2)
    compile(small_net(), example(), tuning=other, tuning_any_cpu=True, threads=2)
