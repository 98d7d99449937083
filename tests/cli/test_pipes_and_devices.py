"""No command waits for a pipe or reads a device: what is no file is refused."""

import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from subpc.cli.main import run
from tests.cli.places import bad_place

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
    source = bad_place(kind, tmp_path)
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
