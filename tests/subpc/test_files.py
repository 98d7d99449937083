"""Writing for the user: whole or not at all, never over an input, never over anything but a regular
file."""

import errno
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from subpc import files
from subpc.errors import ConfigError, WriteError
from subpc.files import check_outputs, check_writable, described, replacing, write_whole

Attempt = Callable[[Path], None]
ATTEMPTS = {
    "check": check_writable,
    "outputs": lambda path: check_outputs([path]),
    "write": lambda path: write_whole(path, "new"),
}


@pytest.fixture(params=["unnamed", "named"])
def drafts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """File systems that know files without a name, and those that do not."""
    if request.param == "named":
        real = os.open

        def refuse(path: object, flags: int, *mode: int, **options: object) -> int:
            if flags & os.O_TMPFILE == os.O_TMPFILE:
                raise OSError(errno.EOPNOTSUPP, "not supported")
            return real(path, flags, *mode, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(files.os, "open", refuse)


@pytest.mark.usefixtures("drafts")
def test_a_new_file_has_the_mode_of_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_whole(tmp_path / "a", "x")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640
    assert (tmp_path / "a").read_text() == "x"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.usefixtures("drafts")
@pytest.mark.parametrize("mode", [0o600, 0o604, 0o755, 0o666])
def test_a_replaced_file_keeps_its_mode_and_owner(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    path.chmod(mode)
    owner = (12345, 12346) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    os.chown(path, *owner)
    write_whole(path, b"new")
    found = path.stat()
    assert (path.read_text(), stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (
        "new",
        mode,
        *owner,
    )


@pytest.mark.usefixtures("drafts")
def test_a_private_file_is_private_while_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    (tmp_path / "a").chmod(0o600)
    with replacing(tmp_path / "a") as file:
        assert stat.S_IMODE(os.fstat(file.fileno()).st_mode) == 0o600


@pytest.mark.usefixtures("drafts")
@pytest.mark.parametrize("there", [True, False])
def test_a_link_is_followed_and_stays(there: bool, tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    if there:
        (tmp_path / "far" / "real").write_text("old")
    (tmp_path / "middle").symlink_to("far/real")
    (tmp_path / "link").symlink_to(tmp_path / "middle")
    write_whole(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "middle").is_symlink()
    assert (tmp_path / "far" / "real").read_text() == "new"
    assert (
        described(tmp_path / "link")
        == f"{tmp_path / 'link'}, a link to {tmp_path / 'far' / 'real'}"
    )
    assert described(tmp_path / "far" / "real") == str(tmp_path / "far" / "real")


def _special(kind: str, folder: Path) -> Path:
    path = folder / "special"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    elif kind == "folder":
        path.mkdir()
    elif kind == "link to a pipe":
        os.mkfifo(folder / "pipe")
        path.symlink_to("pipe")
    elif kind == "link to itself":
        path.symlink_to("special")
    else:
        return Path(os.devnull)
    return path


@pytest.mark.parametrize("attempt", ATTEMPTS)
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("pipe", "it is a pipe"),
        ("link to a pipe", "it is a pipe"),
        ("socket", "it is a socket"),
        ("folder", "it is a folder; give a file name such as"),
        ("device", "it is a device"),
        ("link to itself", "symbolic links"),
    ],
)
def test_nothing_but_a_regular_file_is_replaced(
    kind: str, words: str, attempt: str, tmp_path: Path
) -> None:
    path = _special(kind, tmp_path)
    before = (path.lstat(), sorted(tmp_path.iterdir()))
    with pytest.raises(ConfigError, match=words):
        ATTEMPTS[attempt](path)
    assert (stat.S_IFMT(path.lstat().st_mode), sorted(tmp_path.iterdir())) == (
        stat.S_IFMT(before[0].st_mode),
        before[1],
    )


@pytest.mark.parametrize("attempt", ATTEMPTS)
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing/a.so", "the folder .*missing does not exist"),
        ("file/a.so", "Not a directory"),
        ("n" * 300, "File name too long"),
        ("a\0b", "null byte"),
        ("../../../../../../../../proc/a.so", "choose a folder"),
    ],
)
def test_places_where_nothing_can_be_written(
    name: str, words: str, attempt: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=words):
        ATTEMPTS[attempt](tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is write-protected for root")
def test_a_write_protected_file_stays(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    (tmp_path / "a").chmod(0o444)
    with pytest.raises(ConfigError, match="may not change it"):
        write_whole(tmp_path / "a", "new")


@pytest.mark.parametrize("attempt", [check_writable, lambda path: check_outputs([path])])
def test_a_check_leaves_nothing_and_changes_nothing(attempt: Attempt, tmp_path: Path) -> None:
    (tmp_path / "old").write_text("old")
    attempt(tmp_path / "new")
    attempt(tmp_path / "old")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("old", "old")]


def _spelling(kind: str, folder: Path) -> Path:
    """Another name for folder/in.onnx."""
    (folder / "sub").mkdir()
    if kind == "hard link":
        os.link(folder / "in.onnx", folder / "other")
    elif kind == "symbolic link":
        (folder / "other").symlink_to("in.onnx")
    elif kind == "link to its folder":
        (folder / "other").symlink_to(".")
        return folder / "other" / "in.onnx"
    else:
        return {"itself": folder / "in.onnx", "dots": folder / "sub" / ".." / "in.onnx"}[kind]
    return folder / "other"


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize(
    "kind", ["itself", "hard link", "symbolic link", "link to its folder", "dots"]
)
def test_an_input_is_no_output(
    kind: str, swapped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in.onnx").write_text("model")
    names = (tmp_path / "in.onnx", _spelling(kind, tmp_path))
    given, output = reversed(names) if swapped else names
    with pytest.raises(ConfigError, match=r"input.* would be lost"):
        check_outputs([output], [tmp_path / "unrelated", given])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="would be lost"):
        check_outputs([os.path.relpath(output)], [given])


@pytest.mark.parametrize("there", [True, False])
def test_two_outputs_are_two_files(there: bool, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    if there:
        (tmp_path / "a").write_text("")
    check_outputs([tmp_path / "a", tmp_path / "b", None])
    with pytest.raises(ConfigError, match="is the same file, and is written too"):
        check_outputs([tmp_path / "a", tmp_path / "b", tmp_path / "sub" / ".." / "a"])


def test_a_image_of_a_folder_that_is_read_is_no_output(tmp_path: Path) -> None:
    (tmp_path / "images" / "cats").mkdir(parents=True)
    image = tmp_path / "images" / "cats" / "model.png"
    image.write_bytes(b"")
    with pytest.raises(ConfigError, match="one of the images in"):
        check_outputs([image], [tmp_path / "images"])
    images = tmp_path / "images"
    check_outputs([images / "model.pt", images / "model.png"], [images])
    (real := tmp_path / "photograph").write_bytes(b"")
    (tmp_path / "images" / "a.png").symlink_to(real)
    with pytest.raises(ConfigError, match="one of the images in"):
        check_outputs([real], [tmp_path / "images"])


@pytest.mark.usefixtures("drafts")
@pytest.mark.parametrize(
    "error", [KeyboardInterrupt, OSError(errno.ENOSPC, "No space left on device"), MemoryError]
)
@pytest.mark.parametrize("when", ["body", "fsync"])
def test_a_failed_write_leaves_the_old_file(
    when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    (tmp_path / "a").write_text("old")

    def fail(_: int) -> None:
        raise error

    def write() -> None:
        with replacing(tmp_path / "a") as file:
            file.write(b"new")
            if when == "body":
                fail(0)

    if when == "fsync":
        monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(WriteError if isinstance(error, OSError) else error):  # type: ignore[arg-type]
        write()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "old")]


def test_a_file_that_cannot_get_a_name_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    (tmp_path / "a").write_text("old")
    (tmp_path / "a").chmod(0o604)
    monkeypatch.setattr(files.os, "link", fail)
    write_whole(tmp_path / "a", "new" * 10000)
    assert (tmp_path / "a").read_text() == "new" * 10000
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o604
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_killed_writer_leaves_nothing(tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from subpc.files import replacing\n"
        "with replacing(sys.argv[1]) as file:\n"
        "    file.write(b'half'); file.flush(); print('half', flush=True); time.sleep(60)\n"
    )
    (tmp_path / "a").write_text("old")
    writer = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "a")], stdout=subprocess.PIPE
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"half\n"
    time.sleep(0.01)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "old")]


def test_the_name_that_is_advised_for_a_folder_keeps_its_suffix(tmp_path: Path) -> None:
    for name, advised in (("y.npy", "y.npy/model.npy"), ("folder", "folder/model.so")):
        (tmp_path / name).mkdir()
        with pytest.raises(ConfigError, match=f"such as .*/{advised}$"):
            check_outputs([tmp_path / name], [])
