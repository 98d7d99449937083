"""What is printed: names of others as they are, and never as escape sequences, markup, lines of
their own or pages of text."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from subpc.cli import printing
from subpc.cli.main import run
from subpc.library import artifact
from subpc.library.artifact import read_metadata
from subpc.library.report import Metadata
from subpc.text import LONGEST_LINE, line, printable, shortened

ROOT = Path(__file__).parents[2]
# name -> how it is shown
EVIL = {
    "\x1b[31mred\x1b]0;title\x07": "\\x1b[31mred\\x1b]0;title\\x07",
    "csi\x9b31m": "csi\\x9b31m",
    "two\nlines\r\x08\x7f\t": "two\\nlines\\r\\x08\\x7f\\t",
    "next\x85line\u2028and\u2029paragraph": "next\\x85line\\u2028and\\u2029paragraph",
    "abc\u202egpj.exe\u2066": "abc\\u202egpj.exe\\u2066",
    "zero\u200bwidth\ufeff\u2060": "zero\\u200bwidth\\ufeff\\u2060",
    "tag\U000e0041filler\u3164\ufe0f": "tag\\U000e0041filler\\u3164\\ufe0f",
    "bytes\udcff": "bytes\\xff",
    "lone\ud800": "lone\\ud800",
    "[red]markup[/red] [link=example.com]x[/link] :smile:": (
        "[red]markup[/red] [link=example.com]x[/link] :smile:"
    ),
    "größe.層": "größe.層",
}


@pytest.mark.parametrize("name", EVIL)
def test_names_are_shown_as_they_are_or_escaped(name: str) -> None:
    assert printable(name) == EVIL[name]
    assert line(f"layer {name}.") == f"layer {EVIL[name]}."


def test_long_names_are_cut_and_keep_their_end() -> None:
    assert shortened("a" * 10, 10) == "a" * 10
    assert shortened("a" * 1000 + ".conv1", 100).endswith("a.conv1")
    assert len(shortened("a" * 1000, 100)) == 100
    assert len(line("a" * 10**7)) < 400
    assert "…" in line("a" * 10**7)
    assert len(line("a b" * 10**6)) <= LONGEST_LINE
    assert len(line("\x1b" * 10**6)) <= 2 * LONGEST_LINE


def evil(metadata: Metadata, name: str) -> Metadata:
    """Metadata in which everything that somebody can name has this name."""
    functions = tuple(
        replace(
            function,
            inputs=tuple(replace(tensor, name=name) for tensor in function.inputs),
            outputs=tuple(replace(tensor, name=name) for tensor in function.outputs),
            steps=tuple(replace(step, layer=name, family=name) for step in function.steps),
        )
        for function in metadata.functions
    )
    layers = tuple(
        replace(layer, name=name, reason=name, pattern=name, kernel=name)
        for layer in metadata.layers
    )
    words = {
        "model": name,
        "target": name,
        "notes": (name,),
        "warnings": (name,),
        "versions": {name: name},
    }
    return replace(metadata, functions=functions, layers=layers, **words)


@pytest.fixture
def evil_library(
    toy: Path, toy_object: Path, toy_weights: np.ndarray, tmp_path: Path
) -> Callable[[str], Path]:
    """Writes a library that names everything so, into a file of that name where a file can have
    it."""

    def make(name: str) -> Path:
        metadata = evil(read_metadata(toy), name)
        path = tmp_path / (
            f"{name}.so"
            if "/" not in name and "\ud800" not in name and len(name) < 100
            else "evil.so"
        )
        artifact.write(path, toy_object, toy_weights, metadata)
        return path

    return make


def _commands(library: Path, folder: Path) -> dict[str, list[str]]:
    np.save(folder / "x.npy", np.zeros((1, 3, 16, 16), np.float32))
    return {
        "inspect": ["inspect", str(library)],
        "run": ["run", str(library), "--input", str(folder / "x.npy")],
        "profile": ["profile", str(library), "--runs", "1", "--no-probes"],
        "wrong input": ["run", str(library), "--input", str(library)],
        "wrong shape": ["profile", str(library), "--shape", "1,2,3,4"],
    }


@pytest.mark.parametrize("name", EVIL)
def test_a_library_cannot_write_to_the_terminal(
    name: str,
    evil_library: Callable[[str], Path],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for what, command in _commands(evil_library(name), tmp_path).items():
        code = run(command)
        printed = capfd.readouterr()
        assert (code == 0) == (not what.startswith("wrong"))
        assert "internal error" not in printed.err
        assert all(c.isprintable() or c == "\n" for c in printed.out + printed.err), what
        assert what.startswith("wrong") or EVIL[name].split()[0] in printed.out + printed.err


@pytest.mark.parametrize("name", ["\x1b[31mred", "[red]markup[/red]"])
def test_nor_where_tables_have_colours(
    name: str,
    evil_library: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "300")
    assert run(["inspect", str(evil_library(name))]) == 0
    out = capfd.readouterr().out
    assert "\x1b[31m" not in out
    assert printable(name) in re.sub(r"\x1b\[[0-9;]*m", "", out)
    assert all(c.isprintable() or c == "\n" for c in re.sub(r"\x1b\[[0-9;]*m", "", out))


def test_names_of_kilobytes_are_cut(
    evil_library: Callable[[str], Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for what, command in _commands(evil_library("conv" * 5000), tmp_path).items():
        run(command)
        printed = capfd.readouterr()
        assert max(map(len, (printed.out + printed.err).splitlines())) < 2 * LONGEST_LINE, what
        assert what.startswith("wrong") or "…" in printed.out


@pytest.mark.parametrize("name", EVIL)
def test_json_is_exact(
    name: str, evil_library: Callable[[str], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["inspect", str(evil_library(name)), "--json"]) == 0
    out = capfd.readouterr().out
    assert out.isascii()
    assert all(c.isprintable() or c == "\n" for c in out)
    assert json.loads(out)["layers"][0]["name"] == name


@pytest.mark.parametrize("name", [name for name in EVIL if "\ud800" not in name])
def test_names_of_files_that_are_not_there(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    missing = str(tmp_path / name)
    for command in (
        ["inspect", missing],
        ["compile", missing],
        ["profile", missing],
        ["run", missing, "--input", "x"],
        [name],
    ):
        assert run(command) in (1, 2)
        err = capfd.readouterr().err
        assert all(c.isprintable() or c == "\n" for c in err)
        assert len([text for text in err.splitlines() if text.startswith("error: ")]) == 1
        assert len(err.splitlines()) <= 3
        assert EVIL[name] in err or repr(name)[1:-1] in err


def test_a_name_that_another_format_cannot_hold(
    evil_library: Callable[[str], Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    library = evil_library("bytes\udcff")
    np.save(tmp_path / "x.npy", np.zeros((1, 3, 16, 16), np.float32))
    assert run(
        ["run", str(library), "--input", str(tmp_path / "x.npy"), "-o", str(tmp_path / "y.npz")]
    ) in (0, 1)
    printed = capfd.readouterr()
    assert "internal error" not in printed.err
    assert all(c.isprintable() or c == "\n" for c in printed.out + printed.err)


def test_further_lines_of_an_error_are_few_and_look_like_no_error(
    capfd: pytest.CaptureFixture[str],
) -> None:
    printing.complain("error: a\nerror: b\n" + "c\n" * 50)
    assert capfd.readouterr().err.splitlines() == ["error: a", "  error: b", "c", "c"]


def test_progress_has_no_markup() -> None:
    assert printing.markup("[red]a\x1b") == "\\[red]a\\x1b"


def test_an_image_with_such_a_name(
    tmp_path: Path, toy: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "a\x1b[31m.png")
    (tmp_path / "labels").write_text("\x1b[31mcat\n[red]dog\n" + "x" * 5000 + "\n" * 2000)
    assert run(
        [
            "run",
            str(toy),
            "--image",
            str(tmp_path / "a\x1b[31m.png"),
            "--labels",
            str(tmp_path / "labels"),
        ]
    ) in (0, 2)
    printed = capfd.readouterr()
    assert all(c.isprintable() or c == "\n" for c in printed.out + printed.err)


def _shell(command: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    script = (
        f"subpc() {{ {sys.executable} -c 'from subpc.cli.main import main; main()' \"$@\"; }};"
        f" {command}"
    )
    return subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


GONE = "error: the folder that this runs in does not exist any more; change to another one\n"
FULL = "error: cannot write to standard output: No space left on device\n"


@pytest.mark.parametrize(
    ("command", "code", "err"),
    [
        ("subpc inspect $toy > /dev/full", 1, FULL),
        ("subpc inspect $toy --json > /dev/full", 1, FULL),
        ("subpc --help > /dev/full", 1, "error: No space left on device\n"),
        ("subpc inspect $toy >&-", 0, ""),
        ("subpc inspect none.so 2>&-", 1, ""),
        ("subpc inspect none.so 2> /dev/full", 1, ""),
        ("subpc inspect none.so >&- 2>&- <&-", 1, ""),
        ("set -o pipefail; subpc inspect $toy | true", 1, ""),
        ("unset HOME; subpc inspect $toy > /dev/null", 0, ""),
        ("HOME=/proc/none subpc inspect $toy > /dev/null", 0, ""),
        ("mkdir gone; cd gone; rmdir ../gone; subpc inspect $toy", 2, GONE),
    ],
)
def test_standard_files_and_folders_that_are_not_as_usual(
    command: str, code: int, err: str, toy: Path, tmp_path: Path
) -> None:
    done = _shell(f"cd {tmp_path}; {command}", toy=str(toy))
    assert (done.returncode, done.stderr) == (code, err)


def test_a_file_does_not_become_standard_output(toy: Path, tmp_path: Path) -> None:
    """With a closed standard output, the first file that is opened would get its number, and what
    is printed."""
    np.save(tmp_path / "x.npy", np.zeros((1, 3, 16, 16), np.float32))
    done = _shell(f"cd {tmp_path}; subpc run $toy --input x.npy -o y.npy >&- 2>&-", toy=str(toy))
    assert done.returncode == 0
    assert np.load(tmp_path / "y.npy").shape == (1, 3, 16, 16)


def test_letters_that_the_terminal_lacks(tmp_path: Path) -> None:
    done = _shell("subpc inspect 層.so", PYTHONIOENCODING="latin-1:strict")
    assert (done.returncode, done.stderr) == (1, "error: \\u5c64.so does not exist.\n")


def test_commands_print_in_one_way() -> None:
    """A second way would be one without the escapes."""
    other = re.compile(
        r"click\.(echo|secho|style)|(?<!\.)\bprint\(|sys\.std(out|err)\.write|Console\((?!stderr=True\)|highlight=False\))"
    )
    found = {
        path.name: other.findall(path.read_text())
        for path in (ROOT / "cli").glob("*.py")
        if path.name != "printing.py"
    }
    assert {name: hits for name, hits in found.items() if hits} == {}
