"""`subpc compress udfc`: a smaller file that compiles to what PyTorch computes, and every wrong
input."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from subpc.algorithms.file_format.quantized_entries import packed_entries, parse_packed
from subpc.algorithms.numerics.quantizers import quantize_ternary, quantize_uniform
from subpc.algorithms.udfc.config import UdfcConfig
from subpc.cli.main import run
from subpc.compiler.compile_model import compile
from subpc.compression.compress import compress
from subpc.errors import ModelFileError
from subpc.frontend.architectures.build import build_arch
from tests.algorithms.file_format.reader import load_compressed
from tests.cli.network import RESNET, Capture

SHAPE = (1, 3, 16, 16)


@pytest.fixture(scope="module")
def dense_flops() -> int:
    """What the network takes before anything is removed."""
    return sum(
        layer.flops_dense
        for layer in compile(build_arch(RESNET, in_channels=3), shapes=[SHAPE]).report.layers
    )


@pytest.mark.parametrize("bits", [3, 6, 32])
def test_compiled_file_equals_the_compressed_network(
    weights: Path, dense_flops: int, tmp_path: Path, bits: int, capsys: Capture
) -> None:
    small = tmp_path / "small.pt"
    assert (
        run(
            [
                "compress",
                "udfc",
                str(weights),
                "--ratio",
                "0.5",
                "--bits",
                str(bits),
                "-o",
                str(small),
                "--json",
            ]
        )
        == 0
    )
    report = json.loads(capsys.readouterr().out)
    assert {layer["name"]: (layer["filters"], layer["kept"]) for layer in report["layers"]}[
        "layer1.0.conv1"
    ] == (16, 8)
    net = build_arch(RESNET, in_channels=3)
    net.load_state_dict(torch.load(weights, weights_only=True)["state_dict"])
    expected, _ = compress(
        net, UdfcConfig(ratio=0.5, bits=None if bits == 32 else bits), input_shape=SHAPE
    )
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        reference = expected(x).numpy()
    compiled = compile(small, shapes=[SHAPE])
    assert np.abs(compiled(x).numpy() - reference).max() < 1e-4 * np.ptp(reference)
    assert sum(layer.flops_dense for layer in compiled.report.layers) < 0.7 * dense_flops


def test_the_file_holds_codes_at_their_width(
    weights: Path, tmp_path: Path, capsys: Capture
) -> None:
    small = tmp_path / "small.pt"
    assert (
        run(["compress", "udfc", str(weights), "--ratio", "0", "--bits", "4", "-o", str(small)])
        == 0
    )
    assert "on disk: layers 13" in capsys.readouterr().out
    stored = torch.load(small, weights_only=True)
    assert "layer1.0.conv1.weight" not in stored["state_dict"]
    assert stored["packed"]["layer1.0.conv1"]["codes"].numel() == 16 * 16 * 9 // 2
    file = load_compressed(small)
    assert file.config["bits"] == 4
    assert max(len(row.unique()) for row in file.state_dict["layer1.0.conv1.weight"]) <= 16
    assert small.stat().st_size < 0.4 * weights.stat().st_size


def test_a_compressed_file_can_be_compressed_again(weights: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "a.pt", tmp_path / "b.pt"
    assert (
        run(["compress", "udfc", str(weights), "--ratio", "0.25", "--bits", "8", "-o", str(first)])
        == 0
    )
    assert (
        run(["compress", "udfc", str(first), "--ratio", "0.25", "--bits", "6", "-o", str(second)])
        == 0
    )
    assert load_compressed(second).state_dict["layer1.0.conv1.weight"].shape[0] == 9


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--ratio", "1.5"], "ratio"),
        (["--ratio", "0.99"], "leaves no channel"),
        (["--bits", "9"], "from 2 to 8"),
        (["--skip", "nothing"], "does not have"),
        (["-o", "missing/small.pt"], "does not exist"),
    ],
)
def test_wrong_options_write_nothing(
    weights: Path, tmp_path: Path, options: list[str], words: str, capsys: Capture
) -> None:
    small = tmp_path / "small.pt"
    assert run(["compress", "udfc", str(weights), "-o", str(small), *options]) in (1, 2)
    error = capsys.readouterr().err
    assert words in error
    assert len(error.strip().splitlines()) <= 2
    assert not small.exists()


def test_weights_without_an_architecture(tmp_path: Path, capsys: Capture) -> None:
    torch.save(build_arch(RESNET).state_dict(), tmp_path / "w.pt")
    assert run(["compress", "udfc", str(tmp_path / "w.pt"), "-o", str(tmp_path / "small.pt")]) in (
        1,
        2,
    )
    assert "--arch" in capsys.readouterr().err


@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8])
def test_packed_entries_come_back(bits: int) -> None:
    weight = torch.randn(5, 3, 3, 3, generator=torch.Generator().manual_seed(bits))
    layer = (
        quantize_ternary(weight, per_channel=True) if bits == 2 else quantize_uniform(weight, bits)
    )
    (back,) = parse_packed(packed_entries({"conv": layer}), "f.pt").values()
    assert torch.equal(back.dequantize(), layer.dequantize())


@pytest.mark.parametrize(
    "change",
    [
        {"bits": 9},
        {"bits": True},
        {"shape": [5, 3, 3, 1 << 40]},
        {"shape": []},
        {"codes": torch.zeros(3)},
        {"scale": torch.tensor([float("nan")])},
    ],
)
def test_packed_entries_of_strangers_are_checked(change: dict[str, object]) -> None:
    entries = packed_entries({"conv": quantize_uniform(torch.ones(5, 3, 3, 3), 4)})
    with pytest.raises(ModelFileError, match="conv"):
        parse_packed({"conv": {**entries["conv"], **change}}, "f.pt")
