"""`subpc compress blocks`: zero blocks that the compiler finds, the same outputs, and every wrong
input."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import subpc
from subpc.algorithms.blocks.config import BlockConfig
from subpc.cli.main import run
from subpc.compiler.compile_model import compile
from subpc.compression.calibration import generate
from subpc.frontend.architectures.build import build_arch
from tests.cli.network import RESNET, Capture

SHAPE = (1, 3, 16, 16)
QUICK = ["--shape", "1,3,16,16", "--synthetic", "4", "--synthetic-steps", "2"]


@pytest.mark.parametrize(("n", "sparsity"), [(16, 0.5), (4, 0.75)])
def test_the_compiler_finds_every_block(
    weights: Path, tmp_path: Path, n: int, sparsity: float, capsys: Capture
) -> None:
    sparse = tmp_path / "sparse.pt"
    options = ["--sparsity", str(sparsity), "--block", str(n), "-o", str(sparse), "--json", *QUICK]
    assert run(["compress", "blocks", str(weights), *options]) == 0
    pruned = {
        layer["name"]
        for layer in json.loads(capsys.readouterr().out)["layers"]
        if not layer["reason"]
    }
    assert len(pruned) == 18
    compiled = compile(sparse, shapes=[SHAPE])
    found = {layer.name: layer for layer in compiled.report.layers if layer.name in pruned}
    assert set(found) == pruned
    assert {(layer.pattern, layer.n, layer.sparsity) for layer in found.values()} == {
        (f"1x{n} uniform", n, sparsity)
    }


def test_the_compiled_file_equals_the_network_in_memory(weights: Path, tmp_path: Path) -> None:
    sparse = tmp_path / "sparse.pt"
    assert run(["compress", "blocks", str(weights), "-o", str(sparse), *QUICK]) == 0
    net = build_arch(RESNET, in_channels=3)
    net.load_state_dict(torch.load(weights, weights_only=True)["state_dict"])
    images = generate(net, 4, SHAPE, steps=2, seed=0, progress=lambda *facts: None).images
    expected, report = subpc.compress(net, BlockConfig(), images=images)
    assert report.method == "blocks"
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        reference = expected(x).numpy()
    assert np.abs(compile(sparse, shapes=[SHAPE])(x).numpy() - reference).max() < 1e-4 * np.ptp(
        reference
    )


def test_the_table_says_why_a_layer_stays_dense(
    weights: Path, tmp_path: Path, capsys: Capture
) -> None:
    assert (
        run(
            [
                "compress",
                "blocks",
                str(weights),
                "--keep-dense",
                "layer1.0*",
                "-o",
                str(tmp_path / "sparse.pt"),
                *QUICK,
            ]
        )
        == 0
    )
    lines = capsys.readouterr().out.splitlines()
    reasons = {line.split()[0]: line for line in lines if line.strip()}
    assert "stem" in reasons["conv1"]
    assert "fully connected" in reasons["fc"]
    assert "kept dense by its name" in reasons["layer1.0.conv2"]
    assert "50%" in reasons["layer2.0.conv1"]
    assert any("18 of 22 layers pruned" in line for line in lines)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--sparsity", "1"], "sparsity"),
        (["--sparsity", "-0.1"], "sparsity"),
        (["--block", "5"], "accepted: 4, 8, 16, 32"),
        (["--keep-dense", "*"], "No convolution can be pruned"),
        (["--synthetic", "1"], "2 to 4096"),
        (["--shape", "1,3,32"], "four numbers"),
        (["-o", "missing/sparse.pt"], "does not exist"),
    ],
)
def test_wrong_options_write_nothing(
    weights: Path, tmp_path: Path, options: list[str], words: str, capsys: Capture
) -> None:
    sparse = tmp_path / "sparse.pt"
    assert run(["compress", "blocks", str(weights), "-o", str(sparse), *options]) in (1, 2)
    error = capsys.readouterr().err
    assert words in error
    assert len(error.strip().splitlines()) <= 2
    assert not sparse.exists()
