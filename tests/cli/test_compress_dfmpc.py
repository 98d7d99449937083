"""`subpc compress dfmpc`: a file of packed codes that compiles to what PyTorch computes, and every
wrong input."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from subpc.algorithms.dfmpc.config import DfmpcConfig
from subpc.cli.main import run
from subpc.compiler.compile_model import compile
from subpc.compression.compress import compress
from subpc.frontend.architectures.build import build_arch
from tests.algorithms.file_format.reader import load_compressed
from tests.cli.network import RESNET, Capture

SHAPE = (1, 3, 16, 16)


@pytest.mark.parametrize("low", [2, 3, pytest.param(6, marks=pytest.mark.slow)])
def test_compiled_file_equals_the_compressed_network(
    weights: Path, tmp_path: Path, low: int, capsys: Capture
) -> None:
    small = tmp_path / "small.pt"
    assert (
        run(["compress", "dfmpc", str(weights), "--low-bits", str(low), "-o", str(small), "--json"])
        == 0
    )
    report = json.loads(capsys.readouterr().out)
    assert {layer["name"]: layer["bits"] for layer in report["layers"]}["layer1.0.conv1"] == low
    net = build_arch(RESNET, in_channels=3)
    net.load_state_dict(torch.load(weights, weights_only=True)["state_dict"])
    expected, _ = compress(net, DfmpcConfig(low_bits=low), input_shape=SHAPE)
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        reference = expected(x).numpy()
    assert np.abs(compile(small, shapes=[SHAPE])(x).numpy() - reference).max() < 1e-4 * np.ptp(
        reference
    )


def test_the_file_holds_codes_at_their_width(
    weights: Path, tmp_path: Path, capsys: Capture
) -> None:
    small = tmp_path / "small.pt"
    assert run(["compress", "dfmpc", str(weights), "-o", str(small)]) == 0
    assert "9 layers at 2 bits" in capsys.readouterr().out
    stored = torch.load(small, weights_only=True)
    assert stored["packed"]["layer1.0.conv1"]["codes"].numel() == 16 * 16 * 9 // 4
    assert stored["packed"]["layer1.0.conv2"]["codes"].numel() == 16 * 16 * 9 * 6 // 8
    file = load_compressed(small)
    assert (file.config["method"], file.config["low_bits"]) == ("dfmpc", 2)
    assert max(len(row.unique()) for row in file.state_dict["layer1.0.conv1.weight"]) == 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--low-bits", "1"], "low_bits is 1"),
        (["--high-bits", "9"], "from 2 to 8"),
        (["--lambda1", "-1"], "lambda1"),
        (["--skip", "nothing"], "does not have"),
        (["-o", "missing/small.pt"], "does not exist"),
    ],
)
def test_wrong_options_write_nothing(
    weights: Path, tmp_path: Path, options: list[str], words: str, capsys: Capture
) -> None:
    small = tmp_path / "small.pt"
    assert run(["compress", "dfmpc", str(weights), "-o", str(small), *options]) in (1, 2)
    error = capsys.readouterr().err
    assert words in error
    assert len(error.strip().splitlines()) <= 2
    assert not small.exists()
