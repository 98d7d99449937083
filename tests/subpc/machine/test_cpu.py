"""What the kernel says about this CPU, and what is said where it says nothing."""

from collections.abc import Callable
from pathlib import Path

import pytest

from subpc.cli.main import run
from subpc.errors import TargetError
from subpc.machine import cpu, threads
from subpc.machine.cpu import cpu_features, cpu_name, missing_features


@pytest.fixture
def no_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container without /proc."""
    monkeypatch.setattr(cpu, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(cpu, "STAT", tmp_path / "stat")


def test_flags_and_name_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpuinfo").write_text(
        "processor : 0\nmodel name\t: A CPU\nflags\t\t: sse2 avx2 fma\n"
    )
    monkeypatch.setattr(cpu, "CPUINFO", tmp_path / "cpuinfo")
    assert (cpu_name(), cpu_features()) == ("A CPU", {"sse2", "avx2", "fma"})
    assert missing_features(("avx2", "avx512f")) == ("avx512f",)


@pytest.mark.usefixtures("no_proc")
def test_without_proc_nothing_is_claimed() -> None:
    assert missing_features(()) == ()
    with pytest.raises(TargetError, match=r"not known: .*cpuinfo cannot be read; mount it"):
        missing_features(("avx2",))


@pytest.mark.usefixtures("no_proc")
@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        ("run", 1, "not known"),
        ("inspect", 0, "not known"),
        ("doctor", 1, "problem  cpu          which"),
    ],
)
def test_commands_without_proc(
    command: str,
    code: int,
    words: str,
    make_toy: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    library = make_toy(tmp_path / "a.so", ("avx2",))
    arguments = {
        "run": [str(library), "--input", "x.npy"],
        "inspect": [str(library)],
        "doctor": [],
    }[command]
    assert run([command, *arguments]) == code
    printed = capsys.readouterr()
    assert words in printed.out + printed.err
    assert "lacks" not in printed.out + printed.err


@pytest.mark.usefixtures("no_proc")
def test_a_library_that_needs_nothing_runs_without_proc(toy: Path, tmp_path: Path) -> None:
    import numpy as np

    np.save(tmp_path / "x.npy", np.zeros((1, 3, 16, 16), np.float32))
    assert run(["run", str(toy), "--input", str(tmp_path / "x.npy")]) == 0


def test_threads_cannot_be_counted_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: str) -> list[str]:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(threads.os, "listdir", fail)
    assert threads.native_threads() == set()
