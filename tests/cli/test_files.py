"""Every command looks after the user's files: no output is an input, a device or another output, by
whatever name."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pytest

from subpc.algorithms.registry import METHODS
from subpc.cli.main import COMMANDS, cli, run
from subpc.cli.options import FileCommand, InputFile, InputText, OutputFile, OutputFolder
from tests.cli.places import bad_place

COMPRESS = ["subp", *METHODS]
TRAIN = "compress subp --arch resnet18 --data"
# Every way in which a command reads {in} and writes {out}.
USES = {
    "compile": "compile {in} -o {out}",
    "compile with a database": "compile m.pt --tuning {in} -o {out}",
    "run": "run {in} --input x.npy -o {out}",
    "run on an array": "run m.so --input {in} -o {out}",
    "run on a named array": "run m.so --input other.npy --input image={in} -o {out}",
    "run on an image": "run m.so --image {in} -o {out}",
    "run with labels": "run m.so --image p.png --labels {in} -o {out}",
    "profile": "profile {in} --html {out}",
    "profile with times": "profile m.so --bench {in} --html {out}",
    "profile with a model": "profile m.so --compare onnxruntime --model {in} --html {out}",
    "tune": "tune {in} --db {out}",
    "train": f"{TRAIN} fashion-mnist --init {{in}} -o {{out}}",
    "train on data": f"{TRAIN} fashion-mnist:{{in}} -o {{out}}",
    "train, as ONNX": f"{TRAIN} fashion-mnist --init {{in}} -o m.pt --export-onnx {{out}}",
    "train, as weights": f"{TRAIN} fashion-mnist --init {{in}} -o m.pt --export-state-dict {{out}}",
    **{name: f"compress {name} {{in}} -o {{out}}" for name in METHODS},
    **{
        f"{name} with images": f"compress {name} m.pt --calibration {{in}} -o {{out}}"
        for name in METHODS
    },
    **{f"{name} with labels": f"compress {name} m.pt --eval {{in}} -o {{out}}" for name in METHODS},
}
CONTENT = b"the user's own"


KINDS = [
    *["the input", "the input, spelled otherwise", "a hard link", "a symbolic link", "a pipe"],
    *["a link to a device", "a folder", "a device", "no folder", "in a file"],
]


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
    output = bad_place(kind, tmp_path)
    monkeypatch.chdir(tmp_path)
    before = {path: stat.S_IFMT(path.lstat().st_mode) for path in tmp_path.iterdir()}
    places = {"in": str(tmp_path / "in.pt"), "out": str(output)}
    assert run([part.format(**places) for part in USES[use].split()]) == 2
    printed = capfd.readouterr()
    what = "the database " if use == "tune" else ""
    assert printed.err.startswith(f"error: cannot write {what}{output}: ")
    assert (printed.out, len(printed.err.splitlines())) == ("", 1)
    assert {path: stat.S_IFMT(path.lstat().st_mode) for path in tmp_path.iterdir()} == before
    assert (tmp_path / "in.pt").read_bytes() == CONTENT
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


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
    model = [str(valid / "state.pt"), "--arch", "mynet:net", "--shape", "1,3,8,8"]
    assert run([*command, *model, "-o", form]) == 2
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


def test_a_link_at_the_output_is_followed_and_said(
    toy: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "x.npy", np.zeros((1, 3, 16, 16), np.float32))
    (tmp_path / "real.npy").write_bytes(b"old")
    (tmp_path / "real.npy").chmod(0o640)
    (tmp_path / "y.npy").symlink_to("real.npy")
    link, real = tmp_path / "y.npy", tmp_path / "real.npy"
    assert run(["run", str(toy), "--input", str(tmp_path / "x.npy"), "-o", str(link)]) == 0
    assert f"wrote {link}, a link to {real}" in capfd.readouterr().out
    assert link.is_symlink()
    assert np.load(real).shape == (1, 3, 16, 16)
    assert stat.S_IMODE(real.stat().st_mode) == 0o640


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
