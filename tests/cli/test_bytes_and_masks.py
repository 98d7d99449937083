"""Inputs and outputs of other types than float32 on the command line: bytes of a camera in, class
numbers and truth values out."""

import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import subpc
from subpc.cli.main import run
from tests.cli.several_inputs import CAMERA, FRAME, camera


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bytes")
    torch.save(camera().state_dict(), folder / "camera.pt")
    options = {"dynamo": False, "opset_version": 17, "input_names": ["frame"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(camera(), (FRAME,), str(folder / "camera.onnx"), **options)
    return folder


def test_bytes_in_masks_out(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    library = tmp_path / "m.so"
    network = [str(files / "camera.pt"), "--arch", CAMERA, "--shape", "1,12,10,3:uint8"]
    assert run(["compile", *network, "-o", str(library)]) == 0
    for got, expected in zip(subpc.load(library)(FRAME), camera()(FRAME), strict=True):
        torch.testing.assert_close(got, expected.detach(), rtol=1e-4, atol=1e-5)
    capsys.readouterr()
    other = ["--compare", "onnxruntime", "--model", str(files / "camera.onnx")]
    assert run(["bench", str(library), *other, "--runs", "4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["engines"][1]["difference"] < 1e-5
    assert run(["compare", str(files / "camera.onnx"), str(library), "--runs", "0"]) == 0
    assert "100.00% of the elements" in capsys.readouterr().out


def test_masks_that_differ_are_counted(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = camera()
    with torch.no_grad():
        other.head.bias[0] += 0.2
    torch.save(other.state_dict(), tmp_path / "other.pt")
    shape = ["--shape", "1,12,10,3:uint8", "--arch", CAMERA, "--runs", "0", "--json"]
    assert run(["compare", str(files / "camera.pt"), str(tmp_path / "other.pt"), *shape]) == 0
    outputs = json.loads(capsys.readouterr().out)["outputs"]
    assert 0 < outputs[0]["equal"] < 1
    assert outputs[0]["top1"] is None


def test_samples_of_the_wrong_type(
    files: Path, tmp_path: Path, attempt: Callable[..., str]
) -> None:
    np.save(tmp_path / "x.npy", FRAME.numpy().astype(np.float32))
    model = files / "camera.onnx"
    message = attempt("compare", model, model, "--data", tmp_path / "x.npy", code=2)
    assert "x.astype('uint8')" in message


@pytest.mark.slow
def test_tuning_a_network_that_gives_class_numbers(files: Path, tmp_path: Path) -> None:
    """TVM ends a process that writes such a reduction out for another one, and nothing was left of
    the tuning."""
    arguments = ["tune", str(files / "camera.onnx"), "--budget", "1s"]
    command = [sys.executable, "-c", "from subpc.cli.main import main; main()", *arguments]
    command += ["--db", str(tmp_path / "t.jsonl")]
    assert subprocess.run(command, check=False, capture_output=True, timeout=300).returncode == 0
