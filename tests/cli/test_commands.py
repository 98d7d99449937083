"""The command line: what is printed, exit codes, and every wrong input."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from subpc.cli.main import COMMANDS
from tests.cli.network import Capture, call


@pytest.fixture
def x(tmp_path: Path) -> Path:
    np.save(
        tmp_path / "x.npy",
        np.random.default_rng(0).standard_normal((1, 3, 16, 16)).astype(np.float32),
    )
    return tmp_path / "x.npy"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example(capsys: Capture, name: str) -> None:
    code, out, _ = call(capsys, name, "--help")
    assert code == 0
    assert "Example" in out
    assert f"subpc {name}" in out


def test_overview_lists_all_commands(capsys: Capture) -> None:
    code, out, _ = call(capsys, "--help")
    assert code == 0
    assert all(line in " ".join(out.split()) for name, (_, line) in COMMANDS.items())


def test_run_writes_what_the_model_answers(
    capsys: Capture, toy: Path, x: Path, tmp_path: Path, toy_expected: object
) -> None:
    code, out, err = call(capsys, "run", toy, "--input", x, "-o", tmp_path / "y.npy")
    assert (code, err) == (0, "")
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), toy_expected(np.load(x)))  # type: ignore[operator]
    assert out.startswith("scores: float32[1, 3, 16, 16], from 0 to ")


def test_run_by_name_into_an_archive(capsys: Capture, toy: Path, x: Path, tmp_path: Path) -> None:
    code, out, _ = call(
        capsys, "run", toy, "--input", f"image={x}", "-o", tmp_path / "y.npz", "--json"
    )
    assert code == 0
    assert json.loads(out)["outputs"]["scores"]["shape"] == [1, 3, 16, 16]
    assert np.load(tmp_path / "y.npz")["scores"].shape == (1, 3, 16, 16)


def test_run_on_a_image(capsys: Capture, toy: Path, tmp_path: Path) -> None:
    Image.new("RGB", (40, 30), (0, 0, 0)).save(tmp_path / "a.png")
    (tmp_path / "names.txt").write_text("\n".join(f"name{i}" for i in range(768)))
    arguments = (
        "run",
        toy,
        "--image",
        tmp_path / "a.png",
        "--labels",
        tmp_path / "names.txt",
        "--top",
        3,
    )
    code, out, _ = call(capsys, *arguments)
    assert code == 0
    assert out.splitlines()[1:] == ["100.00% of the pixels  name0 (0)"]
    code, out, _ = call(capsys, *arguments, "--json", "--mean", "0.5", "--std", "0.3,0.2,0.1")
    # Black pixels: (0 - mean) / std is lowest, and the toy's answer highest, in the last channel.
    assert json.loads(out)["pixels"] == [{"index": 2, "name": "name2", "share": 1.0}]


def test_inspect(capsys: Capture, toy: Path) -> None:
    code, out, _ = call(capsys, "inspect", toy)
    assert code == 0
    assert out.splitlines()[0] == "toy: 25% sparse, N=16, float32, untuned, llvm"
    assert "1/3 convs sparse, 2 dense: 1 below threshold, 1 grouped" in out
    assert "layer2.conv1" in out
    assert "runs on this CPU" in out
    code, out, _ = call(capsys, "inspect", toy, "--json")
    assert json.loads(out)["layers"][0]["name"] == "layer1.conv1"


def test_inspect_names_what_this_cpu_lacks(
    capsys: Capture, make_toy: object, tmp_path: Path
) -> None:
    path = make_toy(tmp_path / "a.so", ("avx999f",))  # type: ignore[operator]
    code, out, _ = call(capsys, "inspect", path)
    assert (code, "this CPU lacks avx999f" in out) == (0, True)


def test_profile(capsys: Capture, toy: Path) -> None:
    code, out, _ = call(capsys, "profile", toy, "--runs", 2, "--shape", "2,3,16,16")
    assert code == 0
    assert "layer1.conv1" in out
    assert "whole call" in out
    code, out, _ = call(capsys, "profile", toy, "--runs", 2, "--json", "--no-probes")
    assert [row["layer"] for row in json.loads(out)["layers"]] == ["layer1.conv1", "relu"]


def test_bench_alone(capsys: Capture, toy: Path) -> None:
    code, out, _ = call(capsys, "bench", toy, "--runs", 4, "--warmup", 0, "--json")
    data = json.loads(out)
    assert code == 0
    assert data["engines"][0]["timing"]["runs"] == 4
    assert data["engines"][0]["ratio"] == 1


def test_doctor(capsys: Capture) -> None:
    code, out, _ = call(capsys, "doctor")
    assert code == 0
    assert "subpc can compile and run here." in out
    code, out, _ = call(capsys, "doctor", "--json")
    assert {"linker", "runtime", "threads"} <= {
        check["name"] for check in json.loads(out)["checks"]
    }


def test_doctor_without_a_linker(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    code, out, _ = call(capsys, "doctor")
    assert code == 1
    assert "problem  linker" in out
    assert "apt install gcc" in out


WRONG = [
    (["run", "TOY"], 2, "either --input"),
    (["run", "TOY", "--input", "X", "--image", "X"], 2, "either --input"),
    (["run", "TOY", "--input", "none.npy"], 2, "No such file"),
    (["run", "TOY", "--input", "X", "-o", "y.txt"], 2, "has to end in .npy or .npz"),
    (
        ["run", "TOY", "--image", "TEXT", "--mask", "mask.jpg"],
        2,
        "--mask mask.jpg has to end in .png",
    ),
    (["run", "TOY", "--image", "TEXT", "--mean", "nan"], 2, "three finite numbers"),
    (["run", "TOY", "--image", "TEXT", "--std", "1,1,inf"], 2, "three finite numbers"),
    (["run", "TOY", "--input", "X", "-o", "/none/y.npy"], 2, "choose a folder"),
    (["run", "TOY", "--input", "X", "--input", "X"], 2, "the model takes"),
    (["run", "TOY", "--input", "X", "--threads", "0"], 2, "threads is 0"),
    (["run", "TOY", "--input", "WIDE"], 2, "(1, 3, 16, 16) or (2, 3, 16, 16)"),
    (["run", "TOY", "--input", "DOUBLE"], 2, "astype('float32')"),
    (["run", "TOY", "--input", "TEXT"], 2, "cannot read"),
    (["run", "TOY", "--input", "PICKLE"], 2, "cannot read"),
    (["run", "TOY", "--image", "TEXT"], 2, "is not an image"),
    (["run", "TOY", "--image", "TEXT", "--mean", "1,2"], 2, "three with commas"),
    (["run", "none.so", "--input", "X"], 1, "none.so does not exist"),
    (["run", "TEXT", "--input", "X"], 1, "not a subpc library"),
    (["inspect", "TEXT"], 1, "not a subpc library"),
    (["profile", "TEXT"], 1, "not a subpc library"),
    (["profile", "TOY", "--runs", "0"], 2, "--runs"),
    (["profile", "TOY", "--shape", "1,3,a"], 2, "not a shape"),
    (["profile", "TOY", "--shape", "1,3,8,8"], 2, "image 1,3,16,16 or image 2,3,16,16"),
    (["bench", "TOY", "--compare", "torch"], 2, "--model"),
    (["bench", "TOY", "--compare", "magic"], 2, "accepted, each once"),
    (["compile", "wide.npy", "--target", "llvm -mcpu=foo42"], 2, "unknown CPU 'foo42'"),
    (["compile", "none.pt", "-o", "/none/model.so"], 2, "choose a folder"),
    (["nothing"], 2, "No such command"),
]


@pytest.mark.parametrize(("arguments", "code", "message"), WRONG, ids=lambda value: str(value)[:60])
def test_wrong_input(
    capsys: Capture,
    toy: Path,
    x: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.npy").write_text("hello")
    np.save("wide.npy", np.zeros((1, 3, 16, 17), np.float32))
    np.save("double.npy", np.zeros((1, 3, 16, 16)))
    np.save("pickle.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    names = {
        "TOY": toy,
        "X": x,
        "TEXT": "text.npy",
        "WIDE": "wide.npy",
        "DOUBLE": "double.npy",
        "PICKLE": "pickle.npy",
    }
    before = sorted(tmp_path.iterdir())
    result, out, err = call(capsys, *(names.get(a, a) for a in arguments))
    assert (result, out) == (code, "")
    assert message in err
    assert "Traceback" not in err
    assert sorted(tmp_path.iterdir()) == before


def test_unexpected_errors_have_no_traceback(
    capsys: Capture, toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("subpc.library.artifact.read_metadata", lambda path: 1 / 0)
    code, _, err = call(capsys, "inspect", toy)
    assert code == 1
    assert "internal error (ZeroDivisionError" in err
    assert "SUBPC_DEBUG" in err
    monkeypatch.setenv("SUBPC_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        call(capsys, "inspect", toy)


def test_interruption(capsys: Capture, toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("subpc.library.artifact.read_metadata", interrupt)
    code, _, err = call(capsys, "inspect", toy)
    assert (code, err) == (130, "\ninterrupted\n")
