"""Writing the user's files: whole or not at all, never over an input, never over anything but a
regular file. And opening them.

Everything that subpc writes for the user comes through here. A file that is replaced keeps its mode
and owner; where the name is a symbolic link, the file that it points to is replaced and the link
stays.
"""

import errno
import mimetypes
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from subpc.errors import ConfigError, WriteError
from subpc.text import can_be_a_path

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

AnyPath = str | Path
_KINDS = {
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}


@contextmanager
def replacing(path: AnyPath) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `path` at the end, or leaves no trace after an error
    or a kill."""
    old = _replaceable(path)
    target = Path(_real(path))
    try:
        # What replaces a private file is private from the start; what is new has the mode that the
        # user's mask gives.
        file, name = _draft(target.parent, 0o666 if old is None else 0o600)
    except OSError as error:
        raise _no_place(path, error) from error
    try:
        with file:
            yield file
            file.flush()
            if old is not None:
                _keep_permissions(file.fileno(), old)
            os.fsync(file.fileno())
            name = name or _named(file, target.parent)
        os.replace(name, target)
    except BaseException as error:
        if name is not None:
            with suppress(OSError):
                os.unlink(name)
        if isinstance(error, OSError):
            reason = error.strerror or error
            raise WriteError(
                f"cannot write {path}: {reason}; free space, or choose another place; nothing was"
                " changed"
            ) from error
        raise
    with suppress(OSError):
        _sync_folder(target.parent)


def write_whole(path: AnyPath, content: "str | ReadableBuffer") -> None:
    """Write a file in one step: readers see the old content or all of the new."""
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def check_writable(path: AnyPath) -> None:
    """Raise now, before long work, the error that writing to `path` would raise later."""
    _replaceable(path)
    try:
        file, name = _draft(Path(_real(path)).parent, 0o600)
    except OSError as error:
        raise _no_place(path, error) from error
    file.close()
    if name is not None:
        os.unlink(name)


def check_outputs(outputs: Iterable[AnyPath | None], inputs: Iterable[AnyPath | None] = ()) -> None:
    """ConfigError unless every output can be written and is neither an input nor another output,
    whatever names they go by.

    An input that is a folder stands for the images in it.
    """
    given = [Path(path) for path in inputs if path and can_be_a_path(os.fspath(path))]
    seen: dict[object, AnyPath] = {}
    for path in outputs:
        if path is None:
            continue
        _replaceable(path)
        _check_no_input(path, given)
        check_writable(path)
        other = seen.setdefault(_identity(path), path)
        if other is not path:
            raise _refusal(
                path,
                f"{other} is the same file, and is written too; give each output a name of its own",
            )


def only_regular(path: str, flags: int) -> int:
    """`opener` of `open` for everything that is read: a pipe, which would be waited for, or a
    device raises OSError."""
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(mode := os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(
            errno.EINVAL, "is a directory" if stat.S_ISDIR(mode) else "it is no regular file"
        )
    return descriptor


def described(path: AnyPath) -> str:
    """The name of a file that was written, and where it really is if the name is a link."""
    return f"{path}, a link to {_real(path)}" if os.path.islink(path) else str(path)


def _check_no_input(output: AnyPath, inputs: list[Path]) -> None:
    key, real = _identity(output), Path(_real(output))
    for path in inputs:
        if _identity(path) == key:
            same = (
                "it is an input"
                if os.fspath(output) == os.fspath(path)
                else f"it is the same file as the input {path}"
            )
            raise _refusal(output, f"{same}, which would be lost; give the output another name")
        if os.path.isdir(path) and os.path.exists(real) and _holds_image(path, real, key):
            raise _refusal(
                output,
                f"it is one of the images in {path}, which are read; give the output another name",
            )


def _holds_image(folder: Path, file: Path, key: object) -> bool:
    """Whether the file is an image in the folder, or what an image's name there stands for."""
    inside = Path(_real(folder)) in file.parents and _is_image(file)
    return inside or any(_identity(p) == key for p in folder.rglob("*") if _is_image(p))


def _is_image(path: Path) -> bool:
    return (mimetypes.guess_type(path.name)[0] or "").startswith("image/")


def _identity(path: AnyPath) -> object:
    """Equal for two names of one file, also of one that is not there yet."""
    try:
        found = os.stat(path)
        return found.st_dev, found.st_ino
    except OSError:
        pass
    try:
        folder, name = os.path.split(os.path.realpath(path))
    except FileNotFoundError:  # this process's folder is gone: a relative name names nothing
        return path
    with suppress(OSError):
        found = os.stat(folder)
        return found.st_dev, found.st_ino, name
    return folder, name


def _replaceable(path: AnyPath) -> os.stat_result | None:
    """The file that would be replaced, if there is one; ConfigError if that must not happen."""
    try:
        old = os.stat(path)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ConfigError(
            f"cannot write {os.fspath(path)!r}: {error}; give another name"
        ) from error
    except OSError as error:
        raise _no_place(path, error) from error
    if stat.S_ISDIR(old.st_mode):
        suffix = Path(path).suffix or ".so"
        place = Path(path) / f"model{suffix}"
        raise _refusal(path, f"it is a folder; give a file name such as {place}")
    if not stat.S_ISREG(old.st_mode):
        kind = _KINDS.get(stat.S_IFMT(old.st_mode), "no file")
        raise _refusal(path, f"it is {kind}; give the name of a file")
    if not os.access(path, os.W_OK):
        raise _refusal(
            path,
            f"the file is there and you may not change it (mode {old.st_mode & 0o777:03o}); choose"
            " another name",
        )
    return old


def _real(path: AnyPath) -> str:
    try:
        return os.path.realpath(path)
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path} cannot be found: the folder that this process runs in is gone; change to"
            " another one"
        ) from error


def _refusal(path: AnyPath, reason: str) -> ConfigError:
    return ConfigError(f"cannot write {path}: {reason}")


def _no_place(path: AnyPath, error: OSError) -> ConfigError:
    folder = Path(_real(path)).parent
    if not os.path.lexists(folder):
        return _refusal(
            path,
            f"the folder {folder} does not exist; make it, or choose a folder that you may"
            " write to",
        )
    return _refusal(
        path, f"{error.strerror or error} (in {folder}); choose a folder that you may write to"
    )


def _draft(folder: Path, mode: int) -> tuple[BinaryIO, str | None]:
    """An empty file in `folder`, and its name if it has one: where the file system can, it has none
    until it is whole."""
    if os.path.isdir("/proc/self/fd"):
        with suppress(OSError):
            descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, mode)
            return os.fdopen(descriptor, "w+b"), None
    return _named_draft(folder, mode)


def _named_draft(folder: Path, mode: int) -> tuple[BinaryIO, str]:
    name = _free_name(folder)
    descriptor = os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, mode)
    return os.fdopen(descriptor, "w+b"), name


def _named(file: BinaryIO, folder: Path) -> str:
    """Give a whole file a name of its own in `folder`; copy it where the file system cannot."""
    name = _free_name(folder)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Python follows the link in /proc only where it is given a folder's descriptor.
        os.link(
            f"/proc/self/fd/{file.fileno()}",
            os.path.basename(name),
            dst_dir_fd=descriptor,
            follow_symlinks=True,
        )
        return name
    except OSError:
        return _copy(file, folder)
    finally:
        os.close(descriptor)


def _copy(file: BinaryIO, folder: Path) -> str:
    copy, name = _named_draft(folder, 0o600)
    try:
        with copy:
            file.seek(0)
            shutil.copyfileobj(file, copy)
            copy.flush()
            _keep_permissions(copy.fileno(), os.fstat(file.fileno()))
            os.fsync(copy.fileno())
    except BaseException:
        os.unlink(name)
        raise
    return name


def _free_name(folder: Path) -> str:
    return os.path.join(folder, f".subpc-{secrets.token_hex(8)}.tmp")


def _keep_permissions(descriptor: int, old: os.stat_result) -> None:
    """Owner and group where this user may give files to them, and the mode."""
    own = os.fstat(descriptor)
    if (own.st_uid, own.st_gid) != (old.st_uid, old.st_gid):
        for owner in (old.st_uid, -1):
            with suppress(OSError):
                os.fchown(descriptor, owner, old.st_gid)
                break
    os.fchmod(descriptor, old.st_mode & 0o777)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
