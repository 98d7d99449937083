"""A network like MobileNetV3 that has lost coupled channels: its file is read, and compiles."""

from pathlib import Path

import numpy as np
import pytest
import torch

from subpc.algorithms.udfc.config import UdfcConfig
from subpc.compiler.compile_model import compile
from subpc.compression.compress import compress_file
from subpc.frontend.load_network import load_network
from tests.algorithms.coupled_nets import made

SHAPE = (1, 3, 8, 8)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("coupled")
    program = torch.export.export(made("gate of convolutions"), (torch.rand(SHAPE),))
    torch.export.save(program, folder / "net.pt2")
    config = UdfcConfig(ratio=0.5, bits=8, channels="all")
    report = compress_file(folder / "net.pt2", config, folder / "small.pt")
    kept = {layer.name: layer.kept for layer in report.layers}
    assert (kept["expand.0"], kept["depthwise.0"], kept["gate.expand"]) == (8, 8, 8)
    return folder / "small.pt"


def test_the_file_tells_the_groups_that_are_left(file: Path) -> None:
    network = load_network(file)
    depthwise = network.model.get_submodule("depthwise.0")
    assert depthwise.groups == depthwise.in_channels == depthwise.out_channels == 8
    assert network.graph is not None
    assert network.graph.layers["depthwise.0"][1]["groups"] == 8


@pytest.mark.parametrize(("precision", "most"), [("float32", 1e-4), ("int8", 0.05)])
def test_it_computes_what_pytorch_does(file: Path, precision: str, most: float) -> None:
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = load_network(file).model(x).numpy()
    found = compile(file, precision=precision, output=file.parent / f"{precision}.so")(x).numpy()
    assert float(np.abs(found - expected).max() / np.ptp(expected)) < most
