"""Temporary folders of every kind: oddly named, full, without the right to execute; and what
compiling does not need."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from subpc.cli.main import run
from subpc.library import shared_library

MOUNTS = (
    shutil.which("unshare") is not None
    and subprocess.run(
        ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False
    ).returncode
    == 0
)


@pytest.mark.parametrize("name", ["plain", 'it\'s "quoted" \\ and\nbroken, @x -y größe \udcff'])
def test_compiling_in_a_folder_of_any_name(
    name: str, valid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / name))
    monkeypatch.setattr(tempfile, "tempdir", None)
    assert run(["compile", str(valid / "conv.onnx"), "-o", str(tmp_path / "m.so")]) == 0
    assert (tmp_path / "m.so").exists()
    assert not list((tmp_path / name).glob("subpc-*"))


def test_compiling_to_a_file_loads_nothing(
    valid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        pytest.fail("a library was loaded")

    monkeypatch.setattr(shared_library.Library, "__init__", fail)
    assert run(["compile", str(valid / "conv.onnx"), "-o", str(tmp_path / "m.so")]) == 0


def test_nothing_is_written_without_a_sparse_kernel(
    valid: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert (
        run(["compile", str(valid / "conv.onnx"), "-o", str(tmp_path / "m.so"), "--require-sparse"])
        == 1
    )
    assert "nothing was written because of --require-sparse" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("largest", [0, 4096, 20_000])
def test_a_limit_on_the_size_of_files(largest: int, valid: Path, tmp_path: Path) -> None:
    model = tmp_path / "m.so"
    script = (
        f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({largest}, {largest}))\nfrom"
        " subpc.cli.main import run; raise SystemExit(run(['compile',"
        f" {str(valid / 'conv.onnx')!r}, '-o', {str(model)!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert (done.returncode in (1, 2), len(done.stderr.splitlines())) == (True, 1), done.stderr
    assert done.stderr.startswith("error: cannot ")
    assert "size of files" in done.stderr or "temporary" in done.stderr
    assert not (tmp_path / "m.so").exists()


RESTRICTED = {
    "full": ("size=60k", 1, "temporary files in"),
    "noexec": ("noexec", 0, ""),
    "read-only": ("ro", 0, ""),
}


@pytest.mark.slow
@pytest.mark.skipif(not MOUNTS, reason="nothing can be mounted here")
@pytest.mark.parametrize(("options", "code", "words"), RESTRICTED.values(), ids=RESTRICTED)
def test_mounts_that_restrict(
    options: str, code: int, words: str, valid: Path, tmp_path: Path
) -> None:
    (tmp_path / "small").mkdir()
    main = (
        f"{sys.executable} -c 'from subpc.cli.main import main; main()' compile"
        f" {valid / 'conv.onnx'} -o {tmp_path / 'm.so'}"
    )
    script = f"mount -t tmpfs -o {options} tmpfs {tmp_path / 'small'} && {main}"
    environment = {**os.environ, "TMPDIR": str(tmp_path / "small")}
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (code, code)
    assert words in done.stderr
    assert (tmp_path / "m.so").exists() == (code == 0)
