"""`subpc compress subp` when something goes wrong: killed and resumed, short of disk, with images
that cannot be trained on and settings that are none."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from subpc.cli.main import run
from tests.cli.training import FAST, invoke, weights_in

# The command in a process of its own.
PROCESS = [sys.executable, "-m", "subpc.cli", "compress", "subp"]


def test_killed_at_any_moment_it_goes_on_to_the_same_network(fashion: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole.safetensors", tmp_path / "killed.safetensors"
    arguments = [*FAST, "--data", f"fashion-mnist:{fashion}", "--epochs", "12"]
    assert invoke(*arguments, "-o", str(whole)).exit_code == 0
    command = [*PROCESS, *arguments, "-o", str(killed), "--resume"]
    checkpoint, kills = tmp_path / "killed.safetensors.checkpoint", 0
    for _ in range(2):
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        assert process.stderr.readline().startswith("epoch")
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        kills += process.returncode == -signal.SIGKILL
        assert 1 <= len(torch.load(checkpoint, weights_only=True)["epochs"]) < 12
    assert kills == 2
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    assert not checkpoint.exists()
    expected, got = weights_in(whole), weights_in(killed)
    assert all(torch.equal(value, got[key]) for key, value in expected.items())
    rows = [list(csv.DictReader(path.with_suffix(".csv").open())) for path in (whole, killed)]
    assert [[row["loss"], row["top1"]] for row in rows[0]] == [
        [row["loss"], row["top1"]] for row in rows[1]
    ]


def test_an_unfinished_training_is_not_overwritten(
    fashion: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "net.pt.checkpoint").write_bytes(b"something")
    data, output = ["--data", f"fashion-mnist:{fashion}"], ["-o", str(tmp_path / "net.pt")]
    arguments = ["compress", "subp", *FAST, *data, *output]
    assert run(arguments) == 2
    assert "Pass --resume" in capsys.readouterr().err
    assert run([*arguments, "--resume"]) == 1
    assert "not a checkpoint" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["net.pt.checkpoint"]


def test_no_space_left(fashion: Path, tmp_path: Path) -> None:
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); "
        "from subpc.cli.main import main; main(sys.argv[1:])"
    )
    data, output = ["--data", f"fashion-mnist:{fashion}"], ["-o", str(tmp_path / "net.pt")]
    arguments = ["compress", "subp", *FAST, *data, *output]
    done = subprocess.run(
        [sys.executable, "-c", limited, *arguments], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 1
    assert "cannot write" in done.stderr
    assert "Traceback" not in done.stderr
    assert not [path.name for path in tmp_path.iterdir() if path.suffix not in (".csv",)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("empty", "holds no images"),
        ("one class", "one class (blue)"),
        ("no classes", "no class folders"),
        ("missing", "does not exist"),
        ("other classes", "different classes, such as red"),
    ],
)
def test_folders_that_cannot_be_trained_on(
    folders: Path, change: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root = folders
    if change == "empty":
        (folders / "green").mkdir()
    elif change == "one class":
        for path in (folders / "red").iterdir():
            path.unlink()
        (folders / "red").rmdir()
    elif change == "no classes":
        root = folders / "red"
    elif change == "missing":
        root = folders / "nothing"
    else:
        for part, names in (("train", ("blue", "red")), ("val", ("blue",))):
            for name in names:
                (folders / part / name).mkdir(parents=True)
                Image.new("RGB", (40, 40)).save(folders / part / name / "a.png")
    output = folders.parent / "net.pt"
    data = ["--data", f"imagefolder:{root}"]
    assert run(["compress", "subp", *FAST, *data, "-o", str(output)]) == 2
    assert message in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sparsity", "1.0"], "sparsity is 1.0"),
        (["--sparsity", "-0.1"], "sparsity is -0.1"),
        (["--block", "5"], "n is 5"),
        (["--end", "3"], "until epoch 3 of 0 to 2"),
        (["--temperature", "0"], "temperature is 0"),
        (["--data", "folder:x"], "imagefolder:FOLDER are accepted"),
        (["--data", "fashion-mnist:nowhere"], "does not exist"),
        (["--arch", "subpc:resnet21"], "no network subpc:resnet21"),
        (["--arch-option", "depth=3"], "no option 'depth'"),
        (["--arch-option", "depth"], "is not NAME=VALUE"),
        (["--init", "nothing.pt"], "does not exist"),
        (["--device", "tpu"], "auto, cpu, cuda"),
        (["-o", "nowhere/net.pt"], "does not exist"),
        (["-o", "net.bin"], "ends with .pt or .safetensors"),
        (["--rearrange"], "one-shot method"),
        (["--batch", "1000"], "do not fill a batch"),
    ],
)
def test_wrong_settings_say_what_is_accepted(
    fashion: Path,
    tmp_path: Path,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    data = ["--data", f"fashion-mnist:{fashion}"]
    code = run(["compress", "subp", *FAST, *data, "-o", "net.pt", *arguments])
    error = capsys.readouterr().err
    assert code in (1, 2)
    assert message in error
    assert len(error.strip().splitlines()) <= 3
    assert os.listdir(tmp_path) == []


def test_an_interrupt_leaves_the_checkpoint(fashion: Path, tmp_path: Path) -> None:
    data, output = ["--data", f"fashion-mnist:{fashion}"], ["-o", str(tmp_path / "net.pt")]
    command = [*PROCESS, *FAST, "--epochs", "500", *data, *output]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert process.stderr.readline().startswith("epoch 0")
    process.send_signal(signal.SIGINT)
    time.sleep(0.1)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error.strip().endswith("interrupted")
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".checkpoint", ".csv"]


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
    training = ["compress", "subp", "--arch", "resnet18", "--data", "fashion-mnist", "-o", "a.pt"]
    assert run([*training, *outputs]) == 2
    assert "is the same file, and is written too" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("beside", ["a.csv", "a.json", "a.png"])
def test_what_a_training_writes_beside_its_model_is_no_input(
    beside: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / beside).write_bytes(b"the user's own")
    training = ["compress", "subp", "--arch", "resnet18", "--data", "fashion-mnist"]
    files = ["--init", str(tmp_path / beside), "-o", str(tmp_path / "a.pt")]
    assert run([*training, *files]) == 2
    assert f"cannot write {tmp_path / beside}: it is an input" in capfd.readouterr().err
