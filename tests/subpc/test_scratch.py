"""Temporary folders: gone after their run, however it ended; those of living runs, of others, and
whatever else is there stay."""

import errno
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from subpc import scratch
from subpc.errors import ConfigError, WriteError
from subpc.scratch import MARK, scratch_folder

HOLD = (
    "import sys, time\n"
    "from subpc.scratch import scratch_folder\n"
    "with scratch_folder('test') as folder:\n"
    "    (folder / 'big').write_bytes(b'x'); print(folder, flush=True); time.sleep(60)\n"
)


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """TMPDIR for this test."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


def _holder() -> "tuple[subprocess.Popen[str], Path]":
    process = subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def _end(process: "subprocess.Popen[str]", number: int) -> None:
    assert process.stdout is not None
    process.send_signal(number)
    process.wait()
    process.stdout.close()


def test_a_folder_is_gone_after_its_run(temporary: Path) -> None:
    with scratch_folder("test") as folder:
        (folder / "file").write_text("")
        assert folder.parent == temporary
        assert folder.stat().st_mode & 0o777 == 0o700
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_the_next_run_removes_what_a_killed_one_left(number: int, temporary: Path) -> None:
    process, left = _holder()
    _end(process, number)
    assert (left / "big").exists()
    with scratch_folder("other") as own:
        assert list(temporary.iterdir()) == [own]


def test_folders_of_living_runs_stay(temporary: Path) -> None:
    process, folder = _holder()
    try:
        with scratch_folder("test"), scratch_folder("test"):
            assert len(list(temporary.iterdir())) == 3
        assert (folder / "big").exists()
    finally:
        _end(process, signal.SIGKILL)


def test_what_is_not_ours_stays(temporary: Path, tmp_path: Path) -> None:
    (temporary / "subpc-test-00000000").mkdir()  # named as ours are, and without the mark
    (temporary / "subpc-experiments").mkdir()
    (temporary / "subpc-experiments" / MARK).touch()
    (temporary / "subpc-test-1.so").touch()
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / MARK).touch()
    (temporary / "subpc-test-aaaaaaaa").symlink_to(tmp_path / "precious")
    before = sorted(temporary.rglob("*"))
    with scratch_folder("test"):
        pass
    assert sorted(temporary.rglob("*")) == before
    assert (tmp_path / "precious" / MARK).exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give folders away")
def test_folders_of_other_users_stay(temporary: Path) -> None:
    process, left = _holder()
    _end(process, signal.SIGKILL)
    os.chown(left, 12345, 12345)
    with scratch_folder("test"):
        pass
    assert left.exists()


def test_a_run_that_was_killed_before_its_folder_had_a_name(temporary: Path) -> None:
    young, old = temporary / ".subpc-test-aaaaaaaa", temporary / ".subpc-test-bbbbbbbb"
    for folder in (young, old):
        folder.mkdir()
        (folder / MARK).touch()
    os.utime(old, (0, 0))
    with scratch_folder("test"):
        pass
    assert list(temporary.iterdir()) == [young]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_no_space_left_says_where(number: int, temporary: Path) -> None:
    with (
        pytest.raises(WriteError, match=f"temporary files in {temporary}: .*set TMPDIR"),
        scratch_folder("test"),
    ):
        raise OSError(number, os.strerror(number))
    assert list(temporary.iterdir()) == []


def test_other_errors_are_not_about_space() -> None:
    with pytest.raises(FileNotFoundError), scratch_folder("test"):
        Path("no such file").read_text()


def test_nowhere_to_put_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(scratch.tempfile, "gettempdir", fail)
    with (
        pytest.raises(ConfigError, match="No usable temporary directory found; set TMPDIR"),
        scratch_folder("test"),
    ):
        pass


def test_file_systems_without_locks_lose_nothing(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(scratch.fcntl, "flock", fail)
    with scratch_folder("test") as folder, scratch_folder("test"):
        assert folder.exists()
    assert list(temporary.iterdir()) == []
