"""Finding and running a linker."""

from pathlib import Path

import pytest

from subpc.errors import CompileError
from subpc.linker import find_linker, link


def test_no_linker_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CompileError, match=r"no linker found.*apt install gcc"):
        find_linker()


def test_a_failing_linker_is_quoted(tmp_path: Path) -> None:
    (tmp_path / "bad.o").write_text("not an object file")
    with pytest.raises(CompileError, match=r"bad\.o"):
        link([tmp_path / "bad.o"], tmp_path / "out.so")
    assert not (tmp_path / "out.so").exists()
