"""Temporary folders that do not stay behind: those of runs that were killed are removed by the next
run."""

import errno
import fcntl
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from subpc.errors import ConfigError, WriteError

# Every folder of ours has this file in it: a folder that only happens to have such a name is not
# touched.
MARK = ".made-by-subpc"
# A folder is locked before it gets its name, so that one with a name and without a lock has no
# process any more.
_NAME = re.compile(r"subpc-[a-z]+-[a-z0-9_]{8}")
_UNNAMED = re.compile(r"\.subpc-[a-z]+-[a-z0-9_]{8}")
_UNNAMED_SECONDS = 600.0
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


@contextmanager
def scratch_folder(purpose: str) -> Iterator[Path]:
    """A folder for temporary files, with `purpose` (one word of small letters) in its name; it is
    gone afterwards.

    ConfigError where there is no place for one, WriteError where no space is left in it.
    """
    try:
        parent = Path(tempfile.gettempdir())
        _remove_left_behind(parent)
        folder, lock = _make(parent, purpose)
    except OSError as error:
        raise ConfigError(
            f"cannot make a temporary folder: {error.strerror or error}; set TMPDIR to a folder"
            " with free space"
        ) from error
    try:
        yield folder
    except OSError as error:
        if error.errno not in _FULL:
            raise
        words = f"cannot write temporary files in {parent}: {error.strerror}"
        raise WriteError(f"{words}; free space there, or set TMPDIR to another folder") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _make(parent: Path, purpose: str) -> tuple[Path, int]:
    unnamed = Path(tempfile.mkdtemp(prefix=f".subpc-{purpose}-", dir=parent))
    try:
        (unnamed / MARK).touch()
        lock = os.open(unnamed, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with suppress(OSError):  # where nothing can be locked, nothing is removed either
            fcntl.flock(lock, fcntl.LOCK_EX)
        return unnamed.rename(parent / unnamed.name.removeprefix(".")), lock
    except BaseException:
        shutil.rmtree(unnamed, ignore_errors=True)
        raise


def _remove_left_behind(parent: Path) -> None:
    """Remove folders of ours whose process is gone, and nothing else."""
    with os.scandir(parent) as entries:
        names = [
            entry.name
            for entry in entries
            if _NAME.fullmatch(entry.name) or _UNNAMED.fullmatch(entry.name)
        ]
    for name in names:
        with suppress(OSError):
            _remove_if_left(parent / name)


def _remove_if_left(folder: Path) -> None:
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(lock)
        young = folder.name.startswith(".") and time.time() - found.st_mtime < _UNNAMED_SECONDS
        if found.st_uid != os.geteuid() or young or not (folder / MARK).is_file():
            return
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
    finally:
        os.close(lock)
