"""`subpc compress` refuses files and images that it cannot use, and leaves nothing behind."""

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from subpc.cli.main import run
from tests.cli.tiny import SHAPE, images, program, tiny


@pytest.fixture
def failing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs `subpc compress METHOD FILE ...`, which has to fail and to write nothing; gives what it
    says."""

    def call(method: str, model: Path, *options: str) -> str:
        before = set(tmp_path.iterdir())
        capsys.readouterr()
        command = ["compress", method, str(model), "-o", str(tmp_path / "none.pt")]
        assert run([*command, *options]) in (1, 2)
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.startswith("error: ")
        assert 1 <= len(printed.err.splitlines()) <= 2
        assert "internal error" not in printed.err
        assert set(tmp_path.iterdir()) == before
        return printed.err

    return call


def test_wrong_images(tmp_path: Path, failing: Callable[..., str]) -> None:
    model, empty = program(tiny(), tmp_path / "m.pt2"), tmp_path / "empty"
    empty.mkdir()
    broken, two = tmp_path / "broken", tmp_path / "two"
    broken.mkdir()
    for index in range(3):
        (broken / f"{index}.png").write_bytes(b"none")
    for name in ("cat", "dog"):
        images(two / name, 2)
    four = tmp_path / "four"
    for name in "0123":
        images(four / name, 1)
    assert "does not exist" in failing("udfc", model, "--calibration", str(tmp_path / "missing"))
    assert "holds 0 images" in failing("udfc", model, "--calibration", str(empty))
    assert "cannot be read" in failing("udfc", model, "--calibration", str(broken))
    assert "choose one" in failing("udfc", model, "--calibration", str(two), "--synthetic", "4")
    assert "give both" in failing("udfc", model, "--max-drop", "1")
    assert "4 classes" in failing("udfc", model, "--max-drop", "1", "--eval", str(two))
    assert "has no t10k" in failing(
        "udfc", model, "--max-drop", "1", "--eval", f"fashion-mnist:{empty}", "--shape", "1,3,16,16"
    )
    assert "0 to 100" in failing("udfc", model, "--max-drop", "-1", "--eval", str(four))


def test_wrong_files(tmp_path: Path, failing: Callable[..., str]) -> None:
    model, script = tiny(), tmp_path / "script.pt"
    torch.jit.save(torch.jit.trace(model, torch.rand(SHAPE)), str(script))
    assert "--shape" in failing("udfc", script)
    good = program(model, tmp_path / "m.pt2")
    assert "exported for input 1,3,16,16" in failing("udfc", good, "--shape", "1,3,32,32")
    assert "from 2 to 8" in failing("dfmpc", good, "--low-bits", "1")
    assert "leaves no channel" in failing("udfc", good, "--ratio", "0.99")
    with torch.no_grad():
        model.bn1.running_var[0] = float("nan")  # type: ignore[index]
    assert "not finite" in failing("udfc", program(model, tmp_path / "nan.pt2"))


def _small_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    model = program(tiny(), tmp_path / "m.pt2")
    before = set(tmp_path.iterdir())
    command = [sys.executable, "-m", "subpc.cli", "compress", "udfc", str(model)]
    done = subprocess.run(
        [*command, "-o", str(tmp_path / "small.pt")],
        capture_output=True,
        text=True,
        preexec_fn=_small_files,
        check=False,
    )
    assert done.returncode == 1
    assert "cannot write" in done.stderr
    assert set(tmp_path.iterdir()) == before
