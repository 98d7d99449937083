"""`subpc tune` and `compile --tuning`: what they refuse, in one or two lines, and that they work
together."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from subpc.cli.main import run
from subpc.tuning.rounds import Tuner
from tests.cli.network import ARCH, SHAPE


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--budget", "0m"], 2, "accepted: 90s, 10m"),
        (["--budget", "10"], 2, "with its unit"),
        (["--trials", "0"], 2, "--trials"),
        (["--tracker", "host:9190"], 2, "go together"),
        (["--tracker", "nonsense", "--device-key", "x"], 2, "not HOST:PORT"),
        (["--tracker", "127.0.0.1:1", "--device-key", "x"], 1, "cannot be reached"),
        (["--target", "cuda"], 1, "not for a CPU"),
        (["--threads", "1000"], 2, "threads is 1000"),
    ],
)
def test_wrong_options(
    attempt: Callable[..., str],
    valid: Path,
    tmp_path: Path,
    options: list[str],
    code: int,
    words: str,
) -> None:
    model = [valid / "state.pt", "--arch", ARCH, "--shape", SHAPE]
    assert words in attempt("tune", *model, "--db", tmp_path / "tune.jsonl", *options, code=code)


def test_a_database_that_cannot_be_written(
    attempt: Callable[..., str], valid: Path, tmp_path: Path
) -> None:
    assert "cannot write the database" in attempt(
        "tune", valid / "program.pt2", "--db", tmp_path / "no folder" / "db", code=2
    )
    assert "cannot write the database" in attempt(
        "tune", valid / "program.pt2", "--db", tmp_path, code=2
    )


def test_a_search_that_is_interrupted_before_its_first_record_leaves_nothing(
    valid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached = []

    def interrupted(*arguments: object, **options: object) -> None:
        reached.append(arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(Tuner, "search", interrupted)
    assert (
        run(["tune", str(valid / "program.pt2"), "--db", str(tmp_path / "db"), "--threads", "1"])
        == 130
    )
    assert reached
    assert list(tmp_path.iterdir()) == []


def test_a_database_of_a_newer_version(
    compiling: Callable[..., str], attempt: Callable[..., str], valid: Path, tmp_path: Path
) -> None:
    (tmp_path / "db").write_text('{"format": 99, "kind": "trial"}\n')
    assert "newer subpc" in compiling(valid / "program.pt2", "--tuning", tmp_path / "db", code=2)
    assert "newer subpc" in attempt("tune", valid / "program.pt2", "--db", tmp_path / "db", code=2)


def test_databases_that_do_not_help(
    compiling: Callable[..., str], valid: Path, tmp_path: Path
) -> None:
    assert "does not exist" in compiling(
        valid / "program.pt2", "--tuning", tmp_path / "none", code=2
    )
    (tmp_path / "empty").write_text("")
    assert "holds no records" in compiling(
        valid / "program.pt2", "--tuning", tmp_path / "empty", code=2
    )


def test_a_model_that_does_not_compile(attempt: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    attempt("tune", tmp_path / "model.onnx", "--db", tmp_path / "db", code=1)


@pytest.mark.slow
def test_tune_then_compile(valid: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    database, library = str(tmp_path / "tune.jsonl"), str(tmp_path / "model.so")
    tuning = [
        "tune",
        str(valid / "program.pt2"),
        "--db",
        database,
        "--trials",
        "4",
        "--budget",
        "5m",
        "--threads",
        "1",
    ]
    assert run([*tuning, "--json"]) == 0
    report = json.loads(capfd.readouterr().out)
    assert report["trials"] == 4
    assert report["speedup"] >= 1.0
    assert run(tuning) == 0
    assert "4 known before" in capfd.readouterr().out.replace("\n", " ")
    assert (
        run(
            [
                "compile",
                str(valid / "program.pt2"),
                "--tuning",
                database,
                "--threads",
                "1",
                "-o",
                library,
            ]
        )
        == 0
    )
    assert ("tuned, " in capfd.readouterr().out) and os.path.getsize(library)


@pytest.mark.parametrize(
    "content",
    [
        b"PK\x03\x04 a model",
        b"\x80\x02}q\x00.",
        b'{"loss": 1}\n{"format":1}\n',
        b"\n",
        b'{"format":1,"kind":"note"}\n',
    ],
)
def test_a_database_that_is_none_is_not_appended_to(
    content: bytes, valid: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    database = tmp_path / "model.pt"
    database.write_bytes(content)
    assert run(["tune", str(valid / "conv.onnx"), "--db", str(database), "--budget", "1s"]) == 2
    assert "is no tuning database: its first line is" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == [database]
    assert database.read_bytes() == content


def test_the_lock_of_a_database_is_no_file_of_the_users(
    valid: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Locking a file empties it."""
    lock, database = tmp_path / "poetry.lock", tmp_path / "poetry"
    lock.write_bytes(b"the user's own")
    assert run(["tune", str(valid / "conv.onnx"), "--db", str(database), "--budget", "1s"]) == 2
    assert "poetry.lock would be its lock, and holds something else" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == [lock]
    assert lock.read_bytes() == b"the user's own"
