"""The tuning database: appended by many, cut by kills, edited by hand, written by newer
versions."""

import json
import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest

from subpc.errors import ConfigError
from subpc.schedules.flat_tile import FlatTile
from subpc.schedules.isa import AVX512
from subpc.schedules.search_space import is_valid, search_space
from subpc.schedules.workload import describe
from subpc.tuned_schedules import database as tuning_db
from subpc.tuned_schedules.database import Database
from subpc.tuned_schedules.record import Machine, Trial, Verdict
from tests.schedules.test_search_space import CASES

HERE = Machine(cpu="A CPU", target="llvm -mcpu=x", threads=2, subpc="1.0", tvm="0.27")
APART = {"joined": 0, "bands": 0}
FLAT = describe("flat", FlatTile(rows=4, vectors=2, blocks=1, pixels_outer=True))
TRIAL = Trial(
    workload={"op": "conv2d"},
    choice=FLAT,
    machine=HERE,
    ratio=0.8,
    accepted=True,
)


def write_many(path: Path, writer: int) -> None:
    for number in range(50):
        tuning_db.append(path, replace(TRIAL, workload={"writer": writer, "number": number}))


def test_records_come_back(tmp_path: Path) -> None:
    verdict = Verdict(network="abc", machine=HERE, schedules={"key": FLAT}, speedup=1.1)
    for record in (TRIAL, verdict):
        tuning_db.append(tmp_path / "db", record)
    found = tuning_db.read(tmp_path / "db")
    assert (found.trials, found.verdicts, found.notes) == ((TRIAL,), (verdict,), ())


def test_fields_that_older_records_lack_say_what_was_done_then(tmp_path: Path) -> None:
    old = {name: value for name, value in FLAT.items() if name not in APART}
    verdict = Verdict(network="abc", machine=HERE, schedules={"key": old}, speedup=1.1)
    for record in (replace(TRIAL, choice=old), verdict):
        tuning_db.append(tmp_path / "db", record)
    found = tuning_db.read(tmp_path / "db")
    assert found.trials == (TRIAL,)
    assert found.verdicts[0].schedules == {"key": FLAT}


@pytest.mark.parametrize("name", CASES)
def test_a_schedule_of_any_family_is_valid_when_it_comes_back(name: str, tmp_path: Path) -> None:
    workload, families = CASES[name]
    space = search_space(workload, AVX512)
    firsts = [next(c for c in space if c["family"] == family) for family in sorted(families)]
    for choice in firsts:
        tuning_db.append(tmp_path / "db", replace(TRIAL, choice=choice))
    found = [trial.choice for trial in tuning_db.read(tmp_path / "db").trials]
    assert found == firsts
    assert all(is_valid(choice, workload, AVX512) for choice in found)


def test_a_schedule_of_no_family_comes_back_as_it_is(tmp_path: Path) -> None:
    strange: list[dict[str, int | str]] = [{}, {"family": "later", "rows": 4}]
    for choice in strange:
        tuning_db.append(tmp_path / "db", replace(TRIAL, choice=choice))
    assert [trial.choice for trial in tuning_db.read(tmp_path / "db").trials] == strange


def test_several_writers_do_not_mix_their_lines(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [
        context.Process(target=write_many, args=(tmp_path / "db", writer)) for writer in range(3)
    ]
    for process in writers:
        process.start()
    for process in writers:
        process.join()
        assert process.exitcode == 0
    found = tuning_db.read(tmp_path / "db")
    assert len({(t.workload["writer"], t.workload["number"]) for t in found.trials}) == 150
    assert found.notes == ()


def test_a_cut_last_line_is_reported_and_spoils_nothing(tmp_path: Path) -> None:
    path = tmp_path / "db"
    tuning_db.append(path, TRIAL)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 2])
    found = tuning_db.read(path)
    assert found.trials == (TRIAL,)
    assert found.notes == (f"{path}, line 2: cut off, as by a killed writer: ignored",)
    tuning_db.append(path, TRIAL)
    assert tuning_db.read(path).trials == (TRIAL, TRIAL)


GOOD = {"format": 1, "kind": "trial", **json.loads(json.dumps(TRIAL, default=lambda o: o.__dict__))}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("hello", "not JSON"),
        ("[1, 2]", "not a tuning record"),
        ("[" * 100_000, "not JSON"),
        (json.dumps({**GOOD, "kind": "other"}), "unknown kind"),
        (json.dumps({**GOOD, "ratio": "fast"}), "ratio is"),
        (json.dumps({**GOOD, "ratio": -1}), "a ratio of -1"),
        (json.dumps({**GOOD, "ratio": float("nan")}), "a ratio of nan"),
        (json.dumps({**GOOD, "choice": 3}), "choice is 3"),
        (json.dumps({**GOOD, "accepted": 1}), "accepted is 1"),
        (json.dumps({**GOOD, "extra": 1}), "missing or unknown"),
        (json.dumps({**GOOD, "machine": {}}), "missing or unknown"),
        (json.dumps({**GOOD, "status": "great"}), "status is"),
    ],
)
def test_nonsense_is_named_by_line_and_ignored(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "db"
    tuning_db.append(path, TRIAL)
    path.write_text(path.read_text() + line + "\n")
    tuning_db.append(path, TRIAL)
    found = tuning_db.read(path)
    assert found.trials == (TRIAL, TRIAL)
    assert len(found.notes) == 1
    assert "line 2" in found.notes[0]
    assert reason in found.notes[0]


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "db").write_text(json.dumps({**GOOD, "format": 2, "new": 1}) + "\n")
    with pytest.raises(ConfigError, match=r"line 1: format 2 was written by a newer subpc"):
        tuning_db.read(tmp_path / "db")


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such tuning database"):
        tuning_db.read(tmp_path / "missing")
    assert tuning_db.read(tmp_path / "missing", missing_ok=True).trials == ()
    with pytest.raises(ConfigError, match="cannot read"):
        tuning_db.read(tmp_path)
    with pytest.raises(ConfigError, match="cannot write the database"):
        tuning_db.check_writable(tmp_path / "no folder" / "db")
    with pytest.raises(ConfigError, match="cannot write the database"):
        tuning_db.check_writable(tmp_path)


def test_records_hold_for_their_machine_only() -> None:
    others = [
        replace(HERE, **change)
        for change in (
            {"cpu": "B"},
            {"target": "llvm"},
            {"threads": 4},
            {"subpc": "2.0"},
            {"tvm": "0.28"},
        )
    ]
    database = Database(path="db", trials=tuple(replace(TRIAL, machine=m) for m in (HERE, *others)))
    assert [t.machine for t in tuning_db.select(database, HERE).trials] == [HERE]
    assert [t.machine for t in tuning_db.select(database, HERE, any_cpu=True).trials] == [
        HERE,
        *others[:3],
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cpu": "B"}, "made for CPU A CPU; here it is B"),
        ({"threads": 4}, "threads 2"),
        ({"subpc": "2"}, "subpc version"),
    ],
)
def test_why_nothing_holds(change: dict[str, str], words: str) -> None:
    assert words in tuning_db.why_nothing(
        Database(path="db", trials=(TRIAL,)), replace(HERE, **change)
    )  # type: ignore[arg-type]


def test_the_best_is_the_fastest_that_was_certain() -> None:
    lucky, failed, best = (
        replace(TRIAL, ratio=0.5, accepted=False),
        replace(TRIAL, status="failed"),
        replace(TRIAL, ratio=0.7),
    )
    assert list(tuning_db.best_trials([TRIAL, lucky, failed, best]).values()) == [best]
