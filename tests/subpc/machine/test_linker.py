"""Finding and running a linker."""

import shutil
from pathlib import Path

import pytest

from subpc.errors import CompileError, WriteError
from subpc.machine.linker import find_linker, link


def test_no_linker_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CompileError, match=r"no linker found.*apt install gcc"):
        find_linker()


def test_a_failing_linker_is_quoted(tmp_path: Path) -> None:
    (tmp_path / "bad.o").write_text("not an object file")
    with pytest.raises(CompileError, match=r"bad\.o"):
        link([tmp_path / "bad.o"], tmp_path / "out.so")
    assert not (tmp_path / "out.so").exists()


@pytest.mark.parametrize(
    "name",
    [
        "a b",
        "it's",
        'say "a"',
        "back\\slash",
        "new\nline",
        "@file",
        "-o",
        "größe",
        "bytes\udcff",
        "$HOME `x`",
    ],
)
def test_a_folder_of_any_name(name: str, toy_object: Path, tmp_path: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    objects = [Path(shutil.copy(path, folder)) for path in toy_object.parent.glob("*.o")]
    assert objects
    link(objects, folder / "out.so")
    assert (folder / "out.so").read_bytes()[:4] == b"\x7fELF"
    assert not list(folder.glob("*.objects"))


def test_the_linker_s_own_temporary_files_are_where_the_objects_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cc").write_text('#!/bin/sh\necho "$TMPDIR" > place\n')
    (tmp_path / "cc").chmod(0o755)
    (tmp_path / "folder").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("TMPDIR", "/nowhere")
    monkeypatch.chdir(tmp_path)
    link([], Path("folder/out.so"))
    assert (tmp_path / "folder" / "place").read_text() == f"{tmp_path / 'folder'}\n"


def test_too_little_space_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    (tmp_path / "bad.o").write_text("not an object file")
    with pytest.raises(
        WriteError,
        match=r"too little space for temporary files in .*, 1 kB; free space there, or set TMPDIR",
    ):
        link([tmp_path / "bad.o"], tmp_path / "out.so")
