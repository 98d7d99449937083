"""Wrong options, folders, libraries and inputs: exit code 1 or 2, one or two lines that say what to
do, nothing written, nothing lost."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from subpc.library.artifact import read_metadata
from subpc.machine.threads import available_threads

TARGETS = {
    "llvm -mcpu=skylake-avx513": "unknown CPU 'skylake-avx513'",
    "llvm -mcqu=native": "did you mean mcpu",
    "llvm -mattr=+avx9": "unknown CPU feature",
    "llvm -num-cores=none": "not a number",
    "cuda": "not for a CPU",
    "": "not for a CPU",
    "llvm -mcpu='": "cannot read target",
}


@pytest.mark.parametrize("target", TARGETS)
def test_targets(target: str, valid: Path, compiling: Callable[..., str]) -> None:
    assert TARGETS[target] in compiling(valid / "conv.onnx", "--target", target, code=2)


def unwritable(kind: str, folder: Path) -> Path:
    (folder / "file").write_text("")
    return {
        "below a file": folder / "file" / "m.so",
        "no such folder": folder / "none" / "m.so",
        "read-only": Path("/proc/m.so"),
        "a folder": folder,
    }[kind]


@pytest.mark.parametrize("kind", ["below a file", "no such folder", "read-only", "a folder"])
@pytest.mark.parametrize("command", ["compile", "run"])
def test_folders_that_cannot_be_written(
    command: str, kind: str, valid: Path, toy: Path, tmp_path: Path, attempt: Callable[..., str]
) -> None:
    path = unwritable(kind, tmp_path)
    np.save(tmp_path / "x.npy", np.zeros((1, 3, 16, 16), np.float32))
    before = sorted(tmp_path.rglob("*"))
    if command == "compile":
        message = attempt("compile", valid / "conv.onnx", "-o", path, code=2)
    else:
        npy = path.with_suffix(".npy") if kind != "a folder" else path
        message = attempt("run", toy, "--input", tmp_path / "x.npy", "-o", npy, code=2)
    assert "cannot write" in message or "has to end in" in message
    assert sorted(tmp_path.rglob("*")) == before


def test_no_linker(
    valid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiling: Callable[..., str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    message = compiling(valid / "conv.onnx", code=1)
    assert "no linker found" in message
    assert "apt install gcc" in message


def test_a_linker_that_fails(
    valid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiling: Callable[..., str]
) -> None:
    (tmp_path / "cc").write_text("#!/bin/sh\necho 'cc: no space left' >&2\nexit 1\n")
    (tmp_path / "cc").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "cc: no space left" in compiling(valid / "conv.onnx", code=1)


@pytest.mark.parametrize("command", ["run", "inspect", "profile", "bench"])
@pytest.mark.parametrize(
    "kind", ["empty", "cut", "corrupted", "foreign", "text", "missing", "a folder"]
)
def test_libraries_that_are_none(
    kind: str,
    command: str,
    toy: Path,
    toy_object: Path,
    tmp_path: Path,
    attempt: Callable[..., str],
) -> None:
    good, path = bytearray(toy.read_bytes()), tmp_path / "m.so"
    middle = len(good) // 2
    content = {
        "empty": b"",
        "cut": good[:middle],
        "foreign": toy_object.read_bytes(),
        "text": b"hello\n" * 100,
    }
    content["corrupted"] = good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :]
    if kind in content:
        path.write_bytes(content[kind])
    elif kind == "a folder":
        path.mkdir()
    np.save(tmp_path / "x.npy", np.zeros((1, 3, 16, 16), np.float32))
    arguments = ["--input", tmp_path / "x.npy"] if command == "run" else []
    assert "m.so" in attempt(command, path, *arguments, code=1)


ARRAYS: dict[str, tuple[np.ndarray, str]] = {
    "wrong shape": (np.zeros((1, 3, 16, 17), np.float32), "(1, 3, 16, 16) or (2, 3, 16, 16)"),
    "wrong rank": (np.zeros((3, 16, 16), np.float32), "(1, 3, 16, 16) or (2, 3, 16, 16)"),
    "wrong type": (np.zeros((1, 3, 16, 16)), "astype('float32')"),
    "text": (np.array(["a"]), "(1, 3, 16, 16)"),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_inputs(name: str, toy: Path, tmp_path: Path, attempt: Callable[..., str]) -> None:
    array, words = ARRAYS[name]
    np.save(tmp_path / "x.npy", array)
    message = attempt(
        "run", toy, "--input", tmp_path / "x.npy", "-o", tmp_path / "out" / "y.npy", code=2
    )
    assert words in message


@pytest.mark.parametrize("threads", ["0", "-1", "100000", "two", "1.5"])
@pytest.mark.parametrize("command", ["run", "profile", "bench", "compile"])
def test_threads(
    command: str, threads: str, toy: Path, valid: Path, tmp_path: Path, attempt: Callable[..., str]
) -> None:
    np.save(tmp_path / "x.npy", np.zeros((1, 3, 16, 16), np.float32))
    file = valid / "conv.onnx" if command == "compile" else toy
    more = {
        "run": ["--input", tmp_path / "x.npy"],
        "compile": ["-o", tmp_path / "out" / "new.so"],
    }.get(command, [])
    message = attempt(command, file, *more, "--threads", threads, code=2)
    assert f"1 to {available_threads()}" in message or "not a valid integer" in message


def test_wrong_usage_points_to_the_help(attempt: Callable[..., str]) -> None:
    assert attempt("compile", code=2).endswith("See: subpc compile --help\n")
    assert "No such option" in attempt("run", "--inpt", "x.npy", code=2)


def test_through_the_installed_command(valid: Path, tmp_path: Path) -> None:
    """The same in a process of its own: what is printed past Python shows, too."""
    command = [
        sys.executable,
        "-c",
        "from subpc.cli.main import main; main()",
        "compile",
        str(valid / "conv.onnx"),
        "--shape",
        "1,3",
    ]
    result = subprocess.run(
        [*command, "-o", str(tmp_path / "m.so")],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert len(result.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.0, 0.4, 0.8])
def test_a_killed_compile_leaves_the_old_library(delay: float, toy: Path, tmp_path: Path) -> None:
    library, temporary = tmp_path / "out" / "m.so", tmp_path / "tmp"
    library.parent.mkdir()
    temporary.mkdir()
    shutil.copy(toy, library)
    torch.save(
        nn.Sequential(*(nn.Conv2d(8, 8, k) for k in range(1, 9))).state_dict(), tmp_path / "m.pt"
    )
    code = (
        "import torch; from torch import nn\ndef net(): return nn.Sequential(*(nn.Conv2d(8, 8, k)"
        " for k in range(1, 9)))"
    )
    (tmp_path / "arch.py").write_text(code)
    arguments = [
        "compile",
        "m.pt",
        "--arch",
        "arch:net",
        "--shape",
        "1,8,64,64",
        "-o",
        str(library),
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", "from subpc.cli.main import main; main()", *arguments],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    while process.poll() is None and not any(temporary.glob("subpc-*/*.o")):
        time.sleep(0.01)
    time.sleep(delay)
    process.kill()
    process.wait()
    assert read_metadata(library).model in ("toy", "m")
    assert [path.name for path in library.parent.iterdir()] == ["m.so"] or delay > 0
