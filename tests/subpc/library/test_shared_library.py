"""Loading code: what was checked is what runs, every load has an image of its own, and goes when
nobody uses it."""

import gc
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from subpc.errors import ModelFileError
from subpc.library import shared_library
from subpc.library.artifact import open_artifact
from subpc.library.shared_library import Library
from subpc.runtime.model import CompiledModel, load

Expected = Callable[[np.ndarray], np.ndarray]


def image() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((1, 3, 16, 16)).astype(np.float32)


def mapped_images() -> int:
    """How many libraries are mapped in this process; the loader maps each in several parts."""
    gc.collect()
    lines = Path("/proc/self/maps").read_text().splitlines()
    return len({line.split()[4] for line in lines if "memfd:subpc" in line})


def replace_by_rename(new: Path, at: Path) -> None:
    os.replace(shutil.copy(new, at.with_suffix(".next")), at)


def replace_in_place(new: Path, at: Path) -> None:
    at.write_bytes(new.read_bytes())


@pytest.mark.parametrize("replace", [replace_by_rename, replace_in_place])
def test_a_replaced_file_loads_as_the_new_library_and_leaves_the_old_one_alone(
    toy: Path,
    other_toy: Path,
    tmp_path: Path,
    toy_expected: Expected,
    replace: Callable[[Path, Path], None],
) -> None:
    path = tmp_path / "model.so"
    shutil.copy(toy, path)
    old = load(path)
    before = old(image())
    replace(other_toy, path)
    new = load(path)
    np.testing.assert_array_equal(new(image()), load(other_toy)(image()))
    np.testing.assert_array_equal(old(image()), before)
    np.testing.assert_array_equal(before, toy_expected(image()))
    assert not np.array_equal(new(image()), before)


def test_a_file_that_shrinks_after_loading_does_not_end_the_process(
    make_toy: Callable[[Path], Path], tmp_path: Path
) -> None:
    path = make_toy(tmp_path / "model.so")
    model = load(path)
    before = model(image())
    os.truncate(path, 0)
    np.testing.assert_array_equal(model(image()), before)


def test_what_is_exchanged_between_check_and_loading_is_not_run(
    toy: Path, other_toy: Path, tmp_path: Path, toy_expected: Expected
) -> None:
    path = tmp_path / "model.so"
    shutil.copy(toy, path)
    checked = open_artifact(path)
    replace_in_place(other_toy, path)
    np.testing.assert_array_equal(CompiledModel(checked)(image()), toy_expected(image()))
    path.unlink()
    np.testing.assert_array_equal(CompiledModel(checked)(image()), toy_expected(image()))


def test_two_loads_of_one_file_are_two_images(toy: Path) -> None:
    code = toy.read_bytes()
    first, second = Library(code, "first"), Library(code, "second")
    assert first.function("toy_0") != second.function("toy_0")


def test_libraries_are_unloaded_with_their_last_user(toy: Path) -> None:
    before, descriptors = mapped_images(), len(os.listdir("/proc/self/fd"))
    models = [load(toy) for _ in range(5)]
    results = [model(image()) for model in models]
    assert mapped_images() == before + 5
    call = models[0].__call__
    del models
    assert mapped_images() == before + 1
    np.testing.assert_array_equal(call(image()), results[1])
    del call
    assert mapped_images() == before
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_thousand_loads_use_no_more_memory_than_one(toy: Path) -> None:
    before = mapped_images()
    for _ in range(1000):
        model = load(toy, threads=1)
    model(image())
    assert mapped_images() == before + 1


def refuse(*_: object) -> int:
    raise PermissionError(1, "Operation not permitted")


def test_without_files_in_memory_a_temporary_file_does(
    toy: Path, toy_expected: Expected, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_library.os, "memfd_create", refuse)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    np.testing.assert_array_equal(load(toy)(image()), toy_expected(image()))
    assert list(tmp_path.iterdir()) == []


KILLED_WHILE_IT_LOADS = """
import os, signal, sys
from pathlib import Path
from subpc.library import shared_library
def refuse(*_): raise PermissionError(1, "Operation not permitted")
shared_library.os.memfd_create = refuse
shared_library.ctypes.CDLL = lambda path: os.kill(os.getpid(), signal.SIGKILL)
shared_library._load(Path(sys.argv[1]).read_bytes(), "toy")
"""


def test_a_temporary_file_of_a_killed_process_is_removed_by_the_next(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_WHILE_IT_LOADS, str(toy)], check=False, env=environment
    )
    assert killed.returncode == -signal.SIGKILL
    assert list(tmp_path.rglob("*.so"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(shared_library.os, "memfd_create", refuse)
    load(toy)
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_can_be_loaded_from_one_line_says_so(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_library.os, "memfd_create", refuse)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(
        ModelFileError, match=r"cannot load .*toy\.so: .*Operation not permitted.*No such file"
    ):
        load(toy)


def test_code_that_the_loader_refuses() -> None:
    with pytest.raises(ModelFileError, match=r"^cannot load broken: .*$"):
        Library(b"\x7fELF" + bytes(5000), "broken")


@pytest.mark.parametrize("symbol", ["toy_7", "", "a\0b", "toy_0_0"])
def test_an_entry_point_that_is_not_there(toy: Path, symbol: str) -> None:
    with pytest.raises(ModelFileError, match="has no function"):
        Library(toy.read_bytes(), "toy").function(symbol)


def test_every_spelling_of_a_path_is_another() -> None:
    assert len({shared_library._spelling(number) for number in range(3000)}) == 3000
