"""`subpc compress` with files and images of every kind: what it says, and what it writes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from subpc.cli.main import run
from subpc.compiler.compile_model import compile
from subpc.frontend.load_network import load_network
from tests.algorithms.file_format.reader import load_compressed
from tests.cli.tiny import ARCH, SHAPE, images, program, tiny

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def compressing(tmp_path: Path, capsys: Capture) -> Callable[..., dict[str, Any]]:
    """Runs `subpc compress METHOD FILE ... -o small.pt --json`, and gives what it prints."""

    def call(method: str, model: Path, *options: str, output: str = "small.pt") -> dict[str, Any]:
        capsys.readouterr()
        assert (
            run(["compress", method, str(model), "-o", str(tmp_path / output), "--json", *options])
            == 0
        ), capsys.readouterr().err
        printed = capsys.readouterr()
        assert printed.err == ""
        report: dict[str, Any] = json.loads(printed.out)
        return report

    return call


def distance(path: Path) -> float:
    """How far the compiled file is from the network that PyTorch builds from it."""
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = load_network(path).model(x).numpy()
    return float(np.abs(compile(path)(x).numpy() - expected).max() / np.ptp(expected))


@pytest.mark.parametrize(
    ("bits", "output"),
    [
        (2, "small.pt"),
        (3, "small.pt"),
        (6, "small.pt"),
        (2, "small.safetensors"),
        (4, "small.safetensors"),
        (8, "small.safetensors"),
    ],
)
def test_bytes_on_disk_are_what_the_report_says(
    bits: int, output: str, tmp_path: Path, compressing: Callable[..., Any]
) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 256, 3),
        nn.BatchNorm2d(256),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3),
        nn.AdaptiveAvgPool2d(1),
    )
    report = compressing(
        "udfc",
        program(model.eval(), tmp_path / "m.pt2"),
        "--ratio",
        "0",
        "--bits",
        str(bits),
        "--inputs",
        "normal",
        output=output,
    )
    on_disk = (tmp_path / output).stat().st_size
    assert report["file_bytes"] == on_disk
    # Tensors alone, counted without the file: names, settings and the report are less than two per
    # cent, or 4 kB.
    assert on_disk - max(0.02 * on_disk, 4096) <= report["bytes"] <= on_disk
    codes = sum(256 * inputs * 9 * bits / 8 for inputs in (3, 256))
    assert codes < sum(layer["bytes"] for layer in report["layers"]) < codes + 256 * 2 * 8 + 16


def test_an_exported_program_there_and_back(
    tmp_path: Path, compressing: Callable[..., Any], capsys: Capture
) -> None:
    model = program(tiny(), tmp_path / "m.pt2")
    report = compressing("udfc", model, "--ratio", "0.25", "--bits", "6")
    assert {layer["name"]: layer["kept"] for layer in report["layers"]} == {
        "conv1": 12,
        "conv2": 12,
        "conv3": 16,
        "fc": 4,
    }
    assert {layer["bits"] for layer in report["layers"]} == {6}
    assert distance(tmp_path / "small.pt") < 1e-4
    again = compressing(
        "dfmpc", tmp_path / "small.pt", "--low-bits", "4", output="again.safetensors"
    )
    assert again["layers"][0]["filters"] == 12
    assert distance(tmp_path / "again.safetensors") < 1e-4


def test_inspect_shows_the_bits_of_each_layer(
    tmp_path: Path, compressing: Callable[..., Any], capsys: Capture
) -> None:
    compressing("dfmpc", program(tiny(), tmp_path / "m.pt2"), "--low-bits", "3", "--high-bits", "5")
    assert run(["compile", str(tmp_path / "small.pt"), "-o", str(tmp_path / "m.so")]) == 0
    capsys.readouterr()
    assert run(["inspect", str(tmp_path / "m.so"), "--json"]) == 0
    bits = {layer["name"]: layer["bits"] for layer in json.loads(capsys.readouterr().out)["layers"]}
    assert bits == {
        name: codes.bits for name, codes in load_compressed(tmp_path / "small.pt").packed.items()
    }
    assert set(bits.values()) == {3, 5}
    assert run(["inspect", str(tmp_path / "m.so")]) == 0
    assert "bits" in capsys.readouterr().out


def test_codes_and_scales_reach_the_compiler_untouched(
    tmp_path: Path, compressing: Callable[..., Any]
) -> None:
    from subpc.frontend.import_model import import_model

    compressing("udfc", program(tiny(), tmp_path / "m.pt2"), "--bits", "4", "--per-channel")
    packed = load_compressed(tmp_path / "small.pt").packed
    (imported,) = import_model(tmp_path / "small.pt")
    for name, codes in packed.items():
        assert torch.equal(imported.packed[name].scale, codes.scale)
        assert torch.equal(imported.packed[name].codes, codes.codes)
        (key,) = [
            key for key, original in imported.param_names.items() if original == f"{name}.weight"
        ]
        assert np.array_equal(imported.params[key], codes.dequantize().numpy())


def test_onnx_without_batch_norms_says_what_still_works(
    tmp_path: Path, compressing: Callable[..., Any]
) -> None:
    torch.onnx.export(
        tiny("no batch norm"), (torch.rand(SHAPE),), str(tmp_path / "m.onnx"), dynamo=False
    )
    report = compressing("udfc", tmp_path / "m.onnx", "--bits", "6")
    assert any("no batch norms" in note for note in report["notes"])
    assert all(
        layer["kept"] == layer["filters"] and layer["bits"] == 6 for layer in report["layers"]
    )
    assert distance(tmp_path / "small.pt") < 1e-4


@pytest.mark.parametrize("kind", ["shared weight", "used twice", "grouped", "non-square"])
@pytest.mark.parametrize("method", ["udfc", "dfmpc"])
def test_awkward_networks_are_right_or_left_alone(
    kind: str, method: str, tmp_path: Path, compressing: Callable[..., Any]
) -> None:
    report = compressing(method, program(tiny(kind), tmp_path / "m.pt2"))
    reasons = {layer["name"]: layer["reason"] for layer in report["layers"]}
    if kind != "non-square":
        assert any(reasons.values())
    assert distance(tmp_path / "small.pt") < 1e-4


def test_half_precision_and_a_scale_of_zero(
    tmp_path: Path, compressing: Callable[..., Any]
) -> None:
    model = tiny()
    with torch.no_grad():
        model.bn1.weight[:4] = 0  # type: ignore[index]
    half = {
        key: value.half() if value.is_floating_point() else value
        for key, value in model.state_dict().items()
    }
    torch.save({"state_dict": half}, tmp_path / "w.pt")
    report = compressing("udfc", tmp_path / "w.pt", "--arch", ARCH, "--shape", "1,3,16,16")
    assert any("float16" in note for note in report["notes"])
    assert distance(tmp_path / "small.pt") < 1e-4


def test_calibration_leaves_out_what_is_no_image(
    tmp_path: Path, compressing: Callable[..., Any]
) -> None:
    folder = images(tmp_path / "images", 5)
    (folder / "broken.jpg").write_bytes(b"none")
    report = compressing("udfc", program(tiny(), tmp_path / "m.pt2"), "--calibration", str(folder))
    assert report["inputs"] == f"5 from {folder}"
    assert any("broken.jpg" in note for note in report["notes"])


@pytest.mark.parametrize("method", ["udfc", "dfmpc", "blocks"])
def test_generated_images(method: str, tmp_path: Path, compressing: Callable[..., Any]) -> None:
    options = ["--synthetic", "4", "--synthetic-steps", "2"]
    assert (
        compressing(method, program(tiny(), tmp_path / "m.pt2"), *options)["inputs"]
        == "4 generated"
    )


def test_options_that_nothing_asks_for_are_named(
    tmp_path: Path, compressing: Callable[..., Any]
) -> None:
    options = ["--seed", "3", "--mean", "0.5"]
    notes = compressing("blocks", program(tiny(), tmp_path / "m.pt2"), *options)["notes"]
    assert [note.partition(" ")[0] for note in notes] == ["--seed", "--mean"]


def test_the_strongest_setting_within_a_drop(
    tmp_path: Path, compressing: Callable[..., Any]
) -> None:
    for name in ("0", "1", "2", "3"):
        images(tmp_path / "labelled" / name, 3)
    options = ["--max-drop", "100", "--eval", str(tmp_path / "labelled")]
    report = compressing("udfc", program(tiny(), tmp_path / "m.pt2"), "--ratio", "0", *options)
    assert report["search"]["setting"] == {"bits": 2}
    assert len(report["search"]["trials"]) == 3
