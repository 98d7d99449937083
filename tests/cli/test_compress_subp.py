"""`subpc compress subp` as a user meets it: on images of several kinds, alone and in a team, and
what it leaves behind."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

import subpc
from subpc.algorithms.file_format.safetensors_file import from_file
from subpc.frontend.architectures.build import build_arch
from tests.algorithms.file_format.reader import load_compressed
from tests.cli.training import ARCH, FAST, invoke, weights_in


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
    full, rounded, exported = weights_in(whole), weights_in(half), load_file(plain)
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
    team = [
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "subpc.cli",
    ]
    settings = ["--begin" if word == "--start" else word for word in FAST]
    arguments = [*settings, "--data", f"fashion-mnist:{fashion}", "-o", str(output)]
    command = [sys.executable, *team, "compress", "subp", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert load_compressed(output).report["sparsity"] == 0.75
    assert [line[:7] for line in done.stderr.splitlines() if line.startswith("epoch")] == [
        "epoch 0",
        "epoch 1",
        "epoch 2",
    ]
    assert done.stdout.count("wrote") == 1


def test_images_in_folders_and_a_corrupt_one_among_them(folders: Path, tmp_path: Path) -> None:
    (folders / "red" / "03.png").write_bytes(b"not an image")
    options = [
        "--size",
        "32",
        "--epochs",
        "2",
        "--start",
        "0",
        "--end",
        "1",
        "--batch",
        "12",
        "--threads",
        "1",
    ]
    for workers in ("0", "2"):
        output = tmp_path / f"net{workers}.pt"
        data = ["--workers", workers, "--data", f"imagefolder:{folders}"]
        result = invoke(*ARCH, *options, *data, "-o", str(output))
        assert result.exit_code == 0, result.output
        report = json.loads(output.with_suffix(".json").read_text())
        assert [Path(name).name for name in report["skipped"]] == ["03.png"]
        assert "not an image" in next(iter(report["skipped"].values()))
        assert report["classes"] == ["blue", "red"]
        assert "03.png" in result.output
    first, second = (weights_in(tmp_path / f"net{workers}.pt") for workers in "02")
    assert all(torch.equal(value, second[key]) for key, value in first.items())


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
    before, after = (
        weights_in(dense)["layer3.1.conv1.weight"],
        weights_in(fine)["layer3.1.conv1.weight"],
    )
    kept = after != 0
    assert torch.nn.functional.cosine_similarity(before[kept], after[kept], dim=0) > 0.9


def test_a_network_trains_with_a_teacher(fashion: Path, tmp_path: Path) -> None:
    teacher, plain, taught = (tmp_path / name for name in ("t.pt", "plain.safetensors", "net.pt"))
    data = ["--data", f"fashion-mnist:{fashion}"]
    options = [*FAST, *data, "--method", "dense", "--export-state-dict", str(plain)]
    assert invoke(*options, "-o", str(teacher)).exit_code == 0
    # A whole file says its architecture; weights alone are those of the network in training.
    for source in (teacher, plain):
        result = invoke(
            *FAST, *data, "--init", str(plain), "--teacher", str(source), "-o", str(taught)
        )
        assert result.exit_code == 0, result.output
    report = json.loads(taught.with_suffix(".json").read_text())
    assert report["config"]["teacher_share"] == 0.9
    # Cross entropy with smoothed labels does not fall so low.
    assert report["epochs"][-1]["loss"] < 0.4
    result = invoke(
        *FAST, *data, "--teacher", str(plain), "--teacher-arch", "resnet18", "-o", str(taught)
    )
    assert result.exit_code == 1
    assert "plain.safetensors does not fit resnet18" in str(result.exception) + result.output
