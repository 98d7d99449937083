"""Every command looks after the user's files: no output is an input, a device or another output, by
whatever name."""

import os
import signal
import stat
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pytest
from PIL import Image

from subpc.algorithms.registry import METHODS
from subpc.cli.main import COMMANDS, cli, run
from subpc.cli.options import FileCommand, InputFile, InputText, OutputFile, OutputFolder

COMPRESS = ["subp", *METHODS]
TRAIN = ["compress", "subp", "--arch", "resnet18", "--data"]
# Every way in which a command reads {in} and writes {out}.
USES = {
    "compile": ["compile", "{in}", "-o", "{out}"],
    "compile with a database": ["compile", "m.pt", "--tuning", "{in}", "-o", "{out}"],
    "run": ["run", "{in}", "--input", "x.npy", "-o", "{out}"],
    "run on an array": ["run", "m.so", "--input", "{in}", "-o", "{out}"],
    "run on a named array": [
        "run",
        "m.so",
        "--input",
        "other.npy",
        "--input",
        "image={in}",
        "-o",
        "{out}",
    ],
    "run on an image": ["run", "m.so", "--image", "{in}", "-o", "{out}"],
    "run with labels": ["run", "m.so", "--image", "p.png", "--labels", "{in}", "-o", "{out}"],
    "profile": ["profile", "{in}", "--html", "{out}"],
    "profile with times": ["profile", "m.so", "--bench", "{in}", "--html", "{out}"],
    "profile with a model": [
        "profile",
        "m.so",
        "--compare",
        "onnxruntime",
        "--model",
        "{in}",
        "--html",
        "{out}",
    ],
    "tune": ["tune", "{in}", "--db", "{out}"],
    "train": [*TRAIN, "fashion-mnist", "--init", "{in}", "-o", "{out}"],
    "train on data": [*TRAIN, "fashion-mnist:{in}", "-o", "{out}"],
    "train, as ONNX": [
        "compress",
        "subp",
        "--arch",
        "a",
        "--data",
        "fashion-mnist",
        "--init",
        "{in}",
        "-o",
        "m.pt",
        "--export-onnx",
        "{out}",
    ],
    "train, as weights": [
        *TRAIN,
        "fashion-mnist",
        "--init",
        "{in}",
        "-o",
        "m.pt",
        "--export-state-dict",
        "{out}",
    ],
    **{name: ["compress", name, "{in}", "-o", "{out}"] for name in METHODS},
    **{
        f"{name} with images": ["compress", name, "m.pt", "--calibration", "{in}", "-o", "{out}"]
        for name in METHODS
    },
    **{
        f"{name} with labels": ["compress", name, "m.pt", "--eval", "{in}", "-o", "{out}"]
        for name in METHODS
    },
}
READS = {
    "run": ["run", "{in}", "--input", "x.npy"],
    "run on an array": ["run", "{library}", "--input", "{in}"],
    "run on an image": ["run", "{library}", "--image", "{in}"],
    "run with labels": ["run", "{library}", "--image", "{image}", "--labels", "{in}"],
    "profile with times": ["profile", "{library}", "--html", "r.html", "--bench", "{in}"],
    "compile": ["compile", "{in}", "-o", "m.so"],
    "compile an ONNX file": ["compile", "{in}.onnx", "-o", "m.so"],
    "compile with a database": ["compile", "{model}", "--tuning", "{in}", "-o", "m.so"],
    "compare": ["compare", "{library}", "{in}", "--runs", "0"],
    "compare on data": ["compare", "{library}", "{library}", "--data", "{in}", "--runs", "0"],
    "compress": ["compress", "udfc", "{in}", "-o", "s.pt"],
    "inspect": ["inspect", "{in}"],
}
CONTENT = b"the user's own"


def _bad_output(kind: str, folder: Path) -> Path:
    """A name that nothing may be written to, beside the input folder/in.pt."""
    if kind == "the input":
        return folder / "in.pt"
    if kind == "the input, spelled otherwise":
        return folder / ".." / folder.name / "." / "in.pt"
    path = folder / "out.pt"
    if kind == "a hard link":
        os.link(folder / "in.pt", path)
    elif kind == "a symbolic link":
        path.symlink_to("in.pt")
    elif kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a link to a device":
        path.symlink_to(os.devnull)
    elif kind == "a folder":
        path.mkdir()
    else:
        return {
            "a device": Path(os.devnull),
            "no folder": folder / "none" / "out.pt",
            "in a file": folder / "in.pt" / "out.pt",
        }[kind]
    return path


KINDS = [
    "the input",
    "the input, spelled otherwise",
    "a hard link",
    "a symbolic link",
    "a pipe",
    "a link to a device",
    "a folder",
]
KINDS += ["a device", "no folder", "in a file"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("use", USES)
def test_nothing_is_lost(
    use: str,
    kind: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "in.pt").write_bytes(CONTENT)
    output = _bad_output(kind, tmp_path)
    monkeypatch.chdir(tmp_path)
    before = {path: stat.S_IFMT(path.lstat().st_mode) for path in tmp_path.iterdir()}
    places = {"{in}": str(tmp_path / "in.pt"), "{out}": str(output)}
    assert (
        run(
            [
                part.replace("{in}", places["{in}"]).replace("{out}", places["{out}"])
                for part in USES[use]
            ]
        )
        == 2
    )
    printed = capfd.readouterr()
    assert printed.err.startswith(
        f"error: cannot write {'the database ' if use == 'tune' else ''}{output}: "
    )
    assert (printed.out, len(printed.err.splitlines())) == ("", 1)
    assert {path: stat.S_IFMT(path.lstat().st_mode) for path in tmp_path.iterdir()} == before
    assert (tmp_path / "in.pt").read_bytes() == CONTENT
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


def _too_long(*_: object) -> None:
    raise TimeoutError("it waits for somebody to write into the pipe")


@pytest.mark.parametrize("kind", ["a pipe", "a link to a device"])
@pytest.mark.parametrize("use", READS)
def test_what_is_no_file_is_refused_and_not_waited_for(
    use: str,
    kind: str,
    toy: Path,
    valid: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    source = _bad_output(kind, tmp_path)
    source.with_name("out.pt.onnx").symlink_to(source)
    Image.new("RGB", (20, 20)).save(tmp_path / "p.png")
    np.save(tmp_path / "x.npy", np.zeros((1, 3, 16, 16), np.float32))
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    places = {
        "{in}": source,
        "{library}": toy,
        "{image}": tmp_path / "p.png",
        "{model}": valid / "conv.onnx",
    }
    command = READS[use]
    for word, path in places.items():
        command = [part.replace(word, str(path)) for part in command]
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(60)
    try:
        assert run(command) in (1, 2)
    finally:
        signal.alarm(0)
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "no regular file" in printed.err or "is a device or pipe" in printed.err
    assert len(printed.err.splitlines()) == 1
    assert sorted(tmp_path.iterdir()) == before


def _commands() -> dict[str, click.Command]:
    context = click.Context(cli)
    found = {name: cli.get_command(context, name) for name in COMMANDS}
    group = found.pop("compress")
    assert isinstance(group, click.Group)
    return {**found, **{name: group.get_command(context, name) for name in COMPRESS}}  # type: ignore[dict-item]


@pytest.mark.parametrize("name", [*(name for name in COMMANDS if name != "compress"), *COMPRESS])
def test_every_path_says_whether_it_is_read_or_written(name: str) -> None:
    """What says so is checked before the command starts; a new option is not forgotten."""
    command = _commands()[name]
    for param in command.params:
        names_a_file = isinstance(param.type, click.Path) or any(
            word in (param.metavar or "") for word in ("FILE", "FOLDER")
        )
        assert not names_a_file or isinstance(
            param.type, InputFile | InputText | OutputFile | OutputFolder
        ), param.name
        assert not isinstance(param.type, OutputFile) or isinstance(command, FileCommand), (
            param.name
        )
    assert all(
        any(isinstance(param.type, OutputFile) for param in _commands()[use.split()[0]].params)
        for use in ("compile", "run", "tune")
    )


def test_a_default_name_is_no_exception(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m.so").write_bytes(CONTENT)
    monkeypatch.chdir(tmp_path)
    assert run(["compile", "m.so"]) == 2
    assert "cannot write m.so: it is an input" in capfd.readouterr().err
    assert (tmp_path / "m.so").read_bytes() == CONTENT


@pytest.mark.parametrize("command", [["compile"], ["compress", "blocks"], ["compress", "udfc"]])
@pytest.mark.parametrize("form", ["mynet.py", "mynet/__init__.py"])
def test_the_code_of_an_architecture_is_an_input(
    command: list[str],
    form: str,
    valid: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    code = tmp_path / form
    code.parent.mkdir(exist_ok=True)
    code.write_bytes(CONTENT)
    assert (
        run(
            [
                *command,
                str(valid / "state.pt"),
                "--arch",
                "mynet:net",
                "--shape",
                "1,3,8,8",
                "-o",
                form,
            ]
        )
        == 2
    )
    assert "input" in capfd.readouterr().err
    assert code.read_bytes() == CONTENT


def test_weights_that_an_onnx_file_keeps_elsewhere_are_an_input(
    valid: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import onnx

    model = onnx.load(valid / "conv.onnx")
    options = {"save_as_external_data": True, "location": "weights.bin", "size_threshold": 0}
    onnx.save(model, tmp_path / "m.onnx", **options)
    before = (tmp_path / "weights.bin").read_bytes()
    for arguments in (["compile"], ["compress", "udfc"]):
        assert run([*arguments, str(tmp_path / "m.onnx"), "-o", str(tmp_path / "weights.bin")]) == 2
        assert "it is an input" in capfd.readouterr().err
    assert (tmp_path / "weights.bin").read_bytes() == before


@pytest.mark.parametrize(
    "outputs",
    [
        ["-o", "a.pt", "--export-state-dict", "./a.pt"],
        ["-o", "a.pt", "--export-onnx", "a.csv"],
        ["-o", "a.pt", "--export-onnx", "a.pt.checkpoint"],
    ],
)
def test_a_training_writes_each_of_its_files_once(
    outputs: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        run(
            [
                "compress",
                "subp",
                "--arch",
                "resnet18",
                "--data",
                "fashion-mnist",
                "-o",
                "a.pt",
                *outputs,
            ]
        )
        == 2
    )
    assert "is the same file, and is written too" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("beside", ["a.csv", "a.json", "a.png"])
def test_what_a_training_writes_beside_its_model_is_no_input(
    beside: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / beside).write_bytes(CONTENT)
    arguments = [
        "--arch",
        "resnet18",
        "--data",
        "fashion-mnist",
        "--init",
        str(tmp_path / beside),
        "-o",
        str(tmp_path / "a.pt"),
    ]
    assert run(["compress", "subp", *arguments]) == 2
    assert f"cannot write {tmp_path / beside}: it is an input" in capfd.readouterr().err


@pytest.mark.parametrize(
    "content",
    [
        b"PK\x03\x04 a model",
        b"\x80\x02}q\x00.",
        b'{"loss": 1}\n{"format":1}\n',
        b"\n",
        b'{"format":1,"kind":"note"}\n',
    ],
)
def test_a_database_that_is_none_is_not_appended_to(
    content: bytes, valid: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.pt").write_bytes(content)
    assert (
        run(
            ["tune", str(valid / "conv.onnx"), "--db", str(tmp_path / "model.pt"), "--budget", "1s"]
        )
        == 2
    )
    assert "is no tuning database: its first line is" in capfd.readouterr().err
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [
        ("model.pt", content)
    ]


def test_the_lock_of_a_database_is_no_file_of_the_users(
    valid: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Locking a file empties it."""
    (tmp_path / "poetry.lock").write_bytes(CONTENT)
    assert (
        run(["tune", str(valid / "conv.onnx"), "--db", str(tmp_path / "poetry"), "--budget", "1s"])
        == 2
    )
    assert "poetry.lock would be its lock, and holds something else" in capfd.readouterr().err
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [
        ("poetry.lock", CONTENT)
    ]


def test_a_link_at_the_output_is_followed_and_said(
    toy: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "x.npy", np.zeros((1, 3, 16, 16), np.float32))
    (tmp_path / "real.npy").write_bytes(b"old")
    (tmp_path / "real.npy").chmod(0o640)
    (tmp_path / "y.npy").symlink_to("real.npy")
    assert (
        run(["run", str(toy), "--input", str(tmp_path / "x.npy"), "-o", str(tmp_path / "y.npy")])
        == 0
    )
    assert (
        f"wrote {tmp_path / 'y.npy'}, a link to {tmp_path / 'real.npy'}" in capfd.readouterr().out
    )
    assert (tmp_path / "y.npy").is_symlink()
    assert np.load(tmp_path / "real.npy").shape == (1, 3, 16, 16)
    assert stat.S_IMODE((tmp_path / "real.npy").stat().st_mode) == 0o640


def test_the_interface_for_python_refuses_the_same(
    valid: Path, tmp_path: Path, toy: Path, make_toy: Callable[..., Path]
) -> None:
    import subpc
    from subpc.compression.compress import compress_file
    from subpc.tuning.tune import tune

    model = valid / "conv.onnx"
    calls: dict[str, Callable[[Path], object]] = {
        "compile": lambda path: subpc.compile(model, output=path),
        "compress": lambda path: compress_file(model, None, path),  # type: ignore[arg-type]
        "tune": lambda path: tune(model, database=path),
        "save": lambda path: subpc.load(toy).save(path),
    }
    os.mkfifo(tmp_path / "pipe.pt")
    os.link(model, tmp_path / "same.pt")
    for name, call in calls.items():
        for path in [tmp_path / "pipe.pt", *([tmp_path / "same.pt"] if name != "save" else [])]:
            with pytest.raises(subpc.ConfigError, match="cannot write"):
                call(path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pipe.pt", "same.pt"]
