"""`subpc compress subp` as a user meets it: killed and resumed, short of disk, with images that are
none, and what it leaves behind."""

import csv
import json
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from safetensors.torch import load_file

import subpc
from subpc.algorithms.file_format.safetensors_file import from_file
from subpc.cli.main import cli, run
from subpc.frontend.architectures.build import build_arch
from tests.algorithms.file_format.reader import load_compressed

SETTINGS = [
    "--arch",
    "subpc:resnet20",
    "--arch-option",
    "stem_stride=4",
    "--epochs",
    "3",
    "--start",
    "0",
    "--end",
    "1",
]
FAST = [*SETTINGS, "--batch", "32", "--rate", "0.05", "--threads", "1", "--device", "cpu"]


@pytest.fixture(scope="module")
def fashion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files like Fashion-MNIST's: 256 + 64 images of ten classes, each class a bright row at
    another height."""
    folder = tmp_path_factory.mktemp("fashion")
    random = np.random.default_rng(0)
    for part, count in (("train", 256), ("t10k", 64)):
        labels = (np.arange(count) % 10).astype(np.uint8)
        images = random.integers(0, 60, (count, 28, 28)).astype(np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[2 * label + 3 : 2 * label + 5] += 180
        (folder / f"{part}-images-idx3-ubyte").write_bytes(
            struct.pack(">4I", 2051, count, 28, 28) + images.tobytes()
        )
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(
            struct.pack(">2I", 2049, count) + labels.tobytes()
        )
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Two classes of 20 small images each, told apart by their colour."""
    random = np.random.default_rng(0)
    for name, channel in (("blue", 2), ("red", 0)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for index in range(20):
            pixels = random.integers(0, 100, (40, 48, 3)).astype(np.uint8)
            pixels[..., channel] += 150
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{index:02}.png")
    return tmp_path / "images"


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["compress", "subp", *arguments], catch_exceptions=True)


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_compressed(path).state_dict


def test_a_trained_file_compiles_with_no_further_word(fashion: Path, tmp_path: Path) -> None:
    output = tmp_path / "net.pt"
    result = invoke(
        *FAST,
        "--data",
        f"fashion-mnist:{fashion}",
        "--export-onnx",
        str(tmp_path / "net.onnx"),
        "-o",
        str(output),
    )
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "net.csv",
        "net.json",
        "net.onnx",
        "net.png",
        "net.pt",
    ]
    file = load_compressed(output)
    assert file.report["pattern"] == "1x16 uniform"
    assert file.input_shape == (1, 1, 28, 28)
    compiled = subpc.compile(output)
    sparse = {
        layer.name: (layer.pattern, layer.sparsity) for layer in compiled.report.layers if layer.n
    }
    assert sparse == dict.fromkeys(file.report["pruned"], ("1x16 uniform", 0.75))
    report = json.loads((tmp_path / "net.json").read_text())
    rows = list(csv.DictReader((tmp_path / "net.csv").open()))
    assert [float(row["top1"]) for row in rows] == [epoch["top1"] for epoch in report["epochs"]]
    assert output.stat().st_size < 0.4 * sum(
        4 * value.numel() for value in file.state_dict.values()
    )
    from_onnx, x = subpc.compile(tmp_path / "net.onnx"), torch.rand(1, 1, 28, 28)
    assert torch.allclose(from_onnx(x), compiled(x), atol=1e-4)


def test_half_the_bytes_and_plain_weights_on_the_side(fashion: Path, tmp_path: Path) -> None:
    whole, half, plain = (
        tmp_path / name for name in ("whole.safetensors", "half.safetensors", "plain.safetensors")
    )
    data = ["--data", f"fashion-mnist:{fashion}"]
    assert invoke(*FAST, *data, "-o", str(whole)).exit_code == 0
    result = invoke(*FAST, *data, "--half", "--export-state-dict", str(plain), "-o", str(half))
    assert result.exit_code == 0, result.output
    assert half.stat().st_size < 0.7 * whole.stat().st_size
    full, rounded, exported = weights(whole), weights(half), load_file(plain)
    for key, value in full.items():
        if key.endswith("num_batches_tracked"):  # what compressed files leave out
            continue
        expected = value.half().float() if value.dim() > 1 else value
        assert torch.equal(rounded[key], expected), key
        assert torch.equal(exported[key], expected), key
    build_arch("subpc:resnet20", stem_stride=4).load_state_dict(exported)
    assert from_file(plain).keys() == exported.keys()  # no header of ours


def test_torchrun_trains_with_a_team(fashion: Path, tmp_path: Path) -> None:
    output = tmp_path / "net.pt"
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "subpc.cli",
    ]
    settings = ["--begin" if word == "--start" else word for word in FAST]
    arguments = [
        "compress",
        "subp",
        *settings,
        "--data",
        f"fashion-mnist:{fashion}",
        "-o",
        str(output),
    ]
    done = subprocess.run([*launch, *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert load_compressed(output).report["sparsity"] == 0.75
    assert [line[:7] for line in done.stderr.splitlines() if line.startswith("epoch")] == [
        "epoch 0",
        "epoch 1",
        "epoch 2",
    ]
    assert done.stdout.count("wrote") == 1


def test_killed_at_any_moment_it_goes_on_to_the_same_network(fashion: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole.safetensors", tmp_path / "killed.safetensors"
    arguments = [*FAST, "--data", f"fashion-mnist:{fashion}", "--epochs", "12"]
    assert invoke(*arguments, "-o", str(whole)).exit_code == 0
    command = [
        sys.executable,
        "-m",
        "subpc.cli",
        "compress",
        "subp",
        *arguments,
        "-o",
        str(killed),
        "--resume",
    ]
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
    expected, got = weights(whole), weights(killed)
    assert all(torch.equal(value, got[key]) for key, value in expected.items())
    rows = [list(csv.DictReader(path.with_suffix(".csv").open())) for path in (whole, killed)]
    assert [[row["loss"], row["top1"]] for row in rows[0]] == [
        [row["loss"], row["top1"]] for row in rows[1]
    ]


def test_an_unfinished_training_is_not_overwritten(
    fashion: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "net.pt.checkpoint").write_bytes(b"something")
    arguments = [
        "compress",
        "subp",
        *FAST,
        "--data",
        f"fashion-mnist:{fashion}",
        "-o",
        str(tmp_path / "net.pt"),
    ]
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
    arguments = [
        "compress",
        "subp",
        *FAST,
        "--data",
        f"fashion-mnist:{fashion}",
        "-o",
        str(tmp_path / "net.pt"),
    ]
    done = subprocess.run(
        [sys.executable, "-c", limited, *arguments], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 1
    assert "cannot write" in done.stderr
    assert "Traceback" not in done.stderr
    assert not [path.name for path in tmp_path.iterdir() if path.suffix not in (".csv",)]


def test_images_in_folders_and_a_corrupt_one_among_them(folders: Path, tmp_path: Path) -> None:
    (folders / "red" / "03.png").write_bytes(b"not an image")
    options = [
        "--arch",
        "subpc:resnet20",
        "--arch-option",
        "stem_stride=4",
        "--size",
        "32",
        "--epochs",
        "2",
        "--start",
        "0",
        "--end",
        "1",
    ]
    for workers in ("0", "2"):
        output = tmp_path / f"net{workers}.pt"
        arguments = [
            *options,
            "--batch",
            "12",
            "--workers",
            workers,
            "--data",
            f"imagefolder:{folders}",
            "--threads",
            "1",
            "-o",
            str(output),
        ]
        result = invoke(*arguments)
        assert result.exit_code == 0, result.output
        report = json.loads(output.with_suffix(".json").read_text())
        assert [Path(name).name for name in report["skipped"]] == ["03.png"]
        assert "not an image" in next(iter(report["skipped"].values()))
        assert report["classes"] == ["blue", "red"]
        assert "03.png" in result.output
    first, second = (weights(tmp_path / f"net{workers}.pt") for workers in "02")
    assert all(torch.equal(value, second[key]) for key, value in first.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("empty", "holds no images"),
        ("one class", "one class (blue)"),
        ("no classes", "no class folders"),
        ("missing", "is not a folder"),
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
    assert (
        run(
            [
                "compress",
                "subp",
                *FAST,
                "--data",
                f"imagefolder:{root}",
                "-o",
                str(folders.parent / "net.pt"),
            ]
        )
        == 2
    )
    assert message in capsys.readouterr().err
    assert not (folders.parent / "net.pt").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sparsity", "1.0"], "sparsity is 1.0"),
        (["--sparsity", "-0.1"], "sparsity is -0.1"),
        (["--block", "5"], "n is 5"),
        (["--end", "3"], "until epoch 3 of 0 to 2"),
        (["--temperature", "0"], "temperature is 0"),
        (["--data", "folder:x"], "imagefolder:FOLDER are accepted"),
        (["--data", "fashion-mnist:nowhere"], "has no train-images"),
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
    code = run(
        [
            "compress",
            "subp",
            *FAST,
            "--data",
            f"fashion-mnist:{fashion}",
            "-o",
            "net.pt",
            *arguments,
        ]
    )
    error = capsys.readouterr().err
    assert code in (1, 2)
    assert message in error
    assert len(error.strip().splitlines()) <= 3
    assert os.listdir(tmp_path) == []


def test_training_goes_on_from_pretrained_weights(fashion: Path, tmp_path: Path) -> None:
    dense, fine = tmp_path / "dense.pt", tmp_path / "fine.pt"
    data = ["--data", f"fashion-mnist:{fashion}"]
    assert invoke(*FAST, *data, "--method", "dense", "-o", str(dense)).exit_code == 0
    result = invoke(
        *FAST, *data, "--method", "oneshot", "--init", str(dense), "--rate", "0.01", "-o", str(fine)
    )
    assert result.exit_code == 0, result.output
    report = json.loads(fine.with_suffix(".json").read_text())
    assert report["config"]["prune_epoch"] == 0
    assert [epoch["sparsity"] for epoch in report["epochs"]] == [0.75] * 3
    before, after = weights(dense)["layer3.1.conv1.weight"], weights(fine)["layer3.1.conv1.weight"]
    kept = after != 0
    assert torch.nn.functional.cosine_similarity(before[kept], after[kept], dim=0) > 0.9


def test_an_interrupt_leaves_the_checkpoint(fashion: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "subpc.cli",
        "compress",
        "subp",
        *FAST,
        "--epochs",
        "500",
        "--data",
        f"fashion-mnist:{fashion}",
    ]
    process = subprocess.Popen(
        [*command, "-o", str(tmp_path / "net.pt")], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    assert process.stderr.readline().startswith("epoch 0")
    process.send_signal(signal.SIGINT)
    time.sleep(0.1)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error.strip().endswith("interrupted")
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".checkpoint", ".csv"]
