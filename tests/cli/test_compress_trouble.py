"""`subpc compress` interrupted or killed, networks saved in the middle of training, and compressed
files of strangers."""

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from subpc.cli.main import run
from subpc.errors import ModelFileError
from subpc.frontend.files.load_file import read_weights

Capture = pytest.CaptureFixture[str]
SIDE = 16
SLOW = 256  # filters, so that a terminal that is drawn ten times a second shows every layer


def network(width: int = 32) -> nn.Sequential:
    torch.manual_seed(0)
    parts = [nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
    parts += [nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 4)).eval()


def program(model: nn.Module, path: Path) -> Path:
    torch.export.save(torch.export.export(model, (torch.rand(1, 3, SIDE, SIDE),)), path)
    return path


def labelled(folder: Path, count: int) -> Path:
    """Four classes of `count` images, of sizes that all differ."""
    draw = np.random.default_rng(0)
    for name in "0123":
        (folder / name).mkdir(parents=True)
        for index in range(count):
            height, width = draw.integers(9, 40, 2)
            Image.fromarray(draw.integers(0, 255, (height, width, 3), np.uint8)).save(
                folder / name / f"{index}.png"
            )
    return folder


def command(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "subpc.cli", "compress", *map(str, words)]


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_a_search_that_is_ended_leaves_nothing(ending: signal.Signals, tmp_path: Path) -> None:
    model, images = program(network(SLOW), tmp_path / "m.pt2"), labelled(tmp_path / "images", 30)
    words = command("udfc", model, "--max-drop", "1", "--eval", images, "-o", tmp_path / "small.pt")
    screen = Screen(words, until="trial 1")
    screen.process.send_signal(ending)
    assert screen.process.wait(60) == (130 if ending is signal.SIGINT else -signal.SIGKILL)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "m.pt2"]


class Screen:
    """A command on a terminal of its own, and what it showed until it said `until`."""

    def __init__(self, words: list[str], until: str) -> None:
        ours, theirs = pty.openpty()
        self.terminal = ours
        self.process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=theirs)
        os.close(theirs)
        self.text, end = "", time.monotonic() + 120
        while until not in self.text and time.monotonic() < end:
            try:
                self.text += os.read(ours, 4096).decode(errors="replace")
            except OSError:  # the other side is closed: the command has ended
                break
        assert until in self.text, self.text

    def finish(self) -> int:
        """The exit code, after everything was read: a full terminal would stop the command."""
        with contextlib.suppress(OSError):
            while os.read(self.terminal, 4096):
                pass
        return self.process.wait(60)


def test_a_terminal_shows_the_layer_that_is_worked_on(tmp_path: Path) -> None:
    screen = Screen(
        command("udfc", program(network(SLOW), tmp_path / "m.pt2"), "-o", tmp_path / "small.pt"),
        until="1/3",
    )
    assert screen.finish() == 0


def test_images_of_any_size_calibrate(tmp_path: Path, capsys: Capture) -> None:
    model, images = program(network(), tmp_path / "m.pt2"), labelled(tmp_path / "images", 3)
    options = ["-o", str(tmp_path / "small.pt"), "--calibration", str(images), "--json"]
    assert run(["compress", "dfmpc", str(model), *options]) == 0
    assert json.loads(capsys.readouterr().out)["inputs"] == f"12 from {images}"


def test_scripts_in_training_mode_are_taken_as_for_inference(
    tmp_path: Path, capsys: Capture
) -> None:
    torch.jit.save(torch.jit.script(network().train()), str(tmp_path / "train.pt"))
    arguments = [
        "compress",
        "udfc",
        str(tmp_path / "train.pt"),
        "--shape",
        f"1,3,{SIDE},{SIDE}",
        "-o",
        str(tmp_path / "small.pt"),
        "--json",
    ]
    assert run(arguments) == 0
    report = json.loads(capsys.readouterr().out)
    assert any("training mode" in note for note in report["notes"])
    assert report["layers"][1]["bits"] == 6


def test_programs_exported_in_training_mode_are_refused(tmp_path: Path, capsys: Capture) -> None:
    error = failing(tmp_path, capsys, program(network().train(), tmp_path / "train.pt2"))
    assert "model.eval()" in error


def test_negative_variances_are_refused(tmp_path: Path, capsys: Capture) -> None:
    model = network()
    with torch.no_grad():
        model[1].running_var[3] = -1.0  # type: ignore[index,operator,union-attr]
    assert "negative variances" in failing(tmp_path, capsys, program(model, tmp_path / "m.pt2"))


def failing(folder: Path, capsys: Capture, model: Path) -> str:
    """What `compress udfc` says about a file that it does not take; nothing is written."""
    before = set(folder.iterdir())
    assert run(["compress", "udfc", str(model), "-o", str(folder / "small.pt")]) == 1
    assert set(folder.iterdir()) == before
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert len(error.splitlines()) <= 2
    assert "internal error" not in error
    return error


@pytest.fixture(scope="module", params=["small.pt", "small.safetensors"])
def small(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A compressed file."""
    folder = tmp_path_factory.mktemp("small")
    path: Path = folder / request.param
    assert (
        run(["compress", "dfmpc", str(program(network(), folder / "m.pt2")), "-o", str(path)]) == 0
    )
    return path


@pytest.mark.parametrize("cut", [0, 1, 100, 0.5, 0.99])
def test_cut_files_are_refused(cut: float, small: Path, tmp_path: Path, capsys: Capture) -> None:
    data = small.read_bytes()
    (tmp_path / f"cut{small.suffix}").write_bytes(
        data[: int(cut * len(data)) if isinstance(cut, float) else cut]
    )
    failing(tmp_path, capsys, tmp_path / f"cut{small.suffix}")


@pytest.mark.parametrize("seed", range(40))
def test_flipped_bytes_are_refused_or_harmless(seed: int, small: Path, tmp_path: Path) -> None:
    """Fuzzing: a file with a few wrong bytes loads as a whole, or is refused with a message."""
    draw = np.random.default_rng(seed)
    data = bytearray(small.read_bytes())
    for place in draw.integers(0, len(data), 8):
        data[place] ^= int(draw.integers(1, 256))
    (tmp_path / f"flipped{small.suffix}").write_bytes(data)
    with contextlib.suppress(ModelFileError):
        read_weights(tmp_path / f"flipped{small.suffix}")


@pytest.mark.parametrize(
    ("given", "used"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "active"}, "ACTIVE")]
)
def test_threads_wait_asleep(given: dict[str, str], used: str, tmp_path: Path) -> None:
    """On a machine where other things run, awake ones took ten times the time."""
    free = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    words = command("blocks", program(network(), tmp_path / "m.pt2"), "-o", tmp_path / "s.pt")
    done = subprocess.run(
        words,
        env={**free, **given, "OMP_DISPLAY_ENV": "true"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"OMP_WAIT_POLICY = '{used}'" in done.stderr
