"""`subpc profile --html`, `subpc compare`: what they print and write, and every wrong input."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import subpc
from subpc.library.artifact import FOOTER
from tests.cli.network import ARCH, Capture, call, net


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("library")
    subpc.compile(net(), torch.rand(1, 3, 8, 8), output=folder / "model.so")
    torch.save(net().state_dict(), folder / "state.pt")
    return folder / "model.so"


def test_profile_shows_a_layers_decision_and_the_gap(capsys: Capture, library: Path) -> None:
    code, out, _ = call(capsys, "profile", library, "--runs", 2)
    assert code == 0
    assert all(
        word in out
        for word in ("conv", "fc", "of peak", "imbalance", "no zeros", "gap", "measured peak")
    )
    code, out, _ = call(capsys, "profile", library, "--runs", 2, "--json", "--no-probes")
    data = json.loads(out)
    assert (data["peak"], data["threads"], data["gap_ms"]) == (
        None,
        data["threads"],
        pytest.approx(data["steps_ms"] - data["total_ms"]),
    )
    assert {row["layer"]: row["decision"] for row in data["layers"]}["conv"] == "dense"


def test_profile_writes_a_page_with_a_stored_comparison(
    capsys: Capture, library: Path, tmp_path: Path
) -> None:
    code, out, _ = call(capsys, "bench", library, "--runs", 4, "--json")
    (tmp_path / "bench.json").write_text(out)
    code, out, err = call(
        capsys,
        "profile",
        library,
        "--runs",
        2,
        "--html",
        tmp_path / "r.html",
        "--bench",
        tmp_path / "bench.json",
    )
    assert (code, err) == (0, "")
    assert f"wrote {tmp_path / 'r.html'}" in out
    assert 'id="peers"' in (tmp_path / "r.html").read_text()


def test_profile_times_other_engines_itself(capsys: Capture, library: Path, tmp_path: Path) -> None:
    model = ("--compare", "torch", "--model", library.parent / "state.pt", "--arch", ARCH)
    code, _, err = call(
        capsys, "profile", library, "--runs", 2, "--html", tmp_path / "r.html", *model
    )
    assert (code, err) == (0, "")
    assert ">torch " in (tmp_path / "r.html").read_text()


def test_compare_prints_agreement_layers_speed_and_size(capsys: Capture, library: Path) -> None:
    arguments = ("compare", library.parent / "state.pt", library, "--arch", ARCH, "--runs", 4)
    code, out, err = call(capsys, *arguments)
    assert (code, err) == (0, "")
    assert all(
        word in out
        for word in (
            "run by torch",
            "run by subpc",
            "random numbers",
            "100.0%",
            "relative error",
            "times",
        )
    )
    code, out, _ = call(capsys, *arguments, "--json")
    data = json.loads(out)
    assert [row["layer"] for row in data["layers"]] == ["conv", "fc"]
    assert data["outputs"][0]["top1"] == 1


WRONG = [
    (["profile", "LIB", "--bench", "bench.json"], 2, "give it a name with --html"),
    (["profile", "LIB", "--html", "r.html", "--bench", "none.json"], 2, "No such file"),
    (
        ["profile", "LIB", "--html", "r.html", "--bench", "text.npy"],
        2,
        "subpc bench model.so --json",
    ),
    (["profile", "LIB", "--html", "r.html", "--bench", "list.json"], 2, "it lists no engines"),
    (["profile", "LIB", "--html", "r.html", "--bench", "engine.json"], 2, "missing keys"),
    (["profile", "LIB", "--html", "r.html", "--bench", "a", "--compare", "torch"], 2, "not both"),
    (["profile", "LIB", "--html", "r.html", "--compare", "torch"], 2, "give it with --model"),
    (["profile", "LIB", "--html", "/none/r.html"], 2, "choose a folder"),
    (["profile", "LIB", "--html", "folder"], 2, "it is a folder"),
    (
        ["profile", "old.so"],
        1,
        (
            "an older subpc: it has library format 1, this one reads format 3.\nCompile the model"
            " again"
        ),
    ),
    (["compare", "LIB", "none.so"], 1, "none.so does not exist"),
    (["compare", "LIB", "none.onnx"], 1, "does not exist"),
    (["compare", "LIB", "old.so"], 1, "an older subpc"),
    (["compare", "LIB", "STATE"], 2, "Pass the architecture"),
    (["compare", "LIB", "LIB", "--data", "folder"], 2, "holds no images"),
    (["compare", "LIB", "LIB", "--data", "none"], 2, "does not exist"),
    (["compare", "LIB", "LIB", "--data", "text.npy"], 2, "cannot read"),
    (["compare", "LIB", "LIB", "--shape", "1,3,9,9"], 2, "compile it with --shape"),
]


@pytest.mark.parametrize(("arguments", "code", "message"), WRONG, ids=lambda value: str(value)[:60])
def test_wrong_input(
    capsys: Capture,
    library: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("text.npy").write_text("hello")
    Path("list.json").write_text("[]")
    Path("engine.json").write_text('{"engines": [{"engine": "x"}]}')
    old = bytearray(library.read_bytes())
    old[len(old) - FOOTER.size + 8] = 1
    Path("old.so").write_bytes(old)
    np.save("x.npy", np.zeros((1, 3, 8, 8), np.float32))
    names = {"LIB": library, "STATE": library.parent / "state.pt"}
    before = sorted(tmp_path.rglob("*"))
    result, out, err = call(capsys, *(names.get(a, a) for a in arguments))
    assert (result, out) == (code, "")
    assert message in err
    assert len(err.removesuffix(f"See: subpc {arguments[0]} --help\n").splitlines()) <= 2
    assert sorted(tmp_path.rglob("*")) == before
