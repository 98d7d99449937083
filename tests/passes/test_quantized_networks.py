"""Networks that ONNX Runtime, NNCF and PyTorch quantized run in whole numbers from end to end, and
compute what ONNX Runtime and PyTorch compute."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from subpc.frontend.import_model import import_model
from subpc.passes import ops
from subpc.passes.pipeline import Rewritten, rewrite_model
from subpc.schedules.isa import AVX512_VNNI, GENERIC, VectorIsa
from tests.frontend.quantized_files import (
    by_nncf,
    by_pt2e,
    by_runtime,
    exported,
    images,
    network,
    runtime,
)
from tests.passes.integer_meanings import evaluate_exactly

# Of the results' range. Rounding is a step: sums that lie on the edge between two codes go either
# way, and what follows goes with them. A wrong scale or zero point in one layer moves everything.
MEAN, MOST = 0.01, 0.06
# File by (exported network, folder).
Writer = Callable[[Path, Path], Path]


def _runtime(**how: object) -> Writer:
    return lambda source, target: by_runtime(source, target, **how)


def _kinds() -> dict[str, Writer]:
    from onnxruntime.quantization import QuantType

    signed = {"activation_type": QuantType.QInt8, "weight_type": QuantType.QInt8}
    symmetric = {"ActivationSymmetric": True, "WeightSymmetric": True}
    return {
        "pairs, a scale a filter": _runtime(per_channel=True),
        "pairs, one scale, signed": _runtime(**signed),
        "pairs, symmetric": _runtime(**signed, extra_options=symmetric, per_channel=True),
        "operators on codes": _runtime(operators=True, per_channel=True),
        "nncf": by_nncf,
    }


def rewritten(path: Path, isa: VectorIsa) -> Rewritten:
    (imported,) = import_model(path)
    return rewrite_model(imported, isa=isa, sparse="auto")


def all_whole(network: Rewritten) -> None:
    """Every layer multiplies bytes, and nothing runs in the fallback."""
    floats = {
        name: decision.why_float
        for name, decision in network.decisions.items()
        if decision.precision != "int8"
    }
    assert not floats
    assert not list(network.graph.calls("relax.call_tir", ops.FAKE_QUANTIZE))


def agrees(found: np.ndarray, expected: np.ndarray) -> None:
    wrong = np.abs(found - expected) / np.ptp(expected)
    assert wrong.mean() < MEAN
    assert wrong.max() < MOST


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("quantized")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind"),
    [*(("mobilenet_v2", kind) for kind in _kinds()), ("resnet18", "pairs, a scale a filter")],
)
def test_onnx_files_run_in_whole_numbers(name: str, kind: str, folder: Path) -> None:
    source = folder / f"{name}.onnx"
    if not source.exists():
        exported(network(name), source)
    path = _kinds()[kind](source, folder / "quantized.onnx")
    whole, floats = (rewritten(path, isa) for isa in (AVX512_VNNI, GENERIC))
    all_whole(whole)
    for x in images(2, 7):
        expected = runtime(path, x.numpy())
        for module in (whole.module, floats.module):
            agrees(evaluate_exactly(module, x)[0].numpy(), expected)


class EveryKind(nn.Module):
    """Layers and what lies between them in networks: transposed convolutions, gates, parts of
    channels, upsampling, borders, means."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.down = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(32, 16, 2, 2)
        self.wide = nn.ConvTranspose2d(32, 16, 3, 2, 1, output_padding=1)
        self.joined, self.gate = nn.Conv2d(32, 16, 3, padding=1), nn.Conv2d(32, 16, 1)
        self.part, self.fc = nn.Conv2d(8, 16, 1), nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.hardswish(self.stem(x))
        y = F.silu(self.down(x))
        z = self.joined(torch.cat([self.up(y), x], 1)).relu() + self.wide(y).relu()
        z = z * torch.sigmoid(F.interpolate(self.gate(y), scale_factor=2, mode="nearest"))
        a, b = z.chunk(2, 1)
        z = self.part(F.pad(a, (1, 0, 1, 0)))[:, :, 1:, 1:] + F.leaky_relu(torch.cat([b, a], 1))
        result: torch.Tensor = self.fc(F.avg_pool2d(z, 2).mean((2, 3)))
        return result


@pytest.mark.slow
@pytest.mark.parametrize("operators", [False, True], ids=["pairs", "operators on codes"])
def test_every_kind_of_layer_runs_in_whole_numbers(operators: bool, tmp_path: Path) -> None:
    """ONNX Runtime leaves transposed convolutions in floats where it writes operators on codes."""
    shape = (1, 3, 32, 32)
    torch.manual_seed(0)
    source = exported(EveryKind().eval(), tmp_path / "net.onnx", shape)
    path = by_runtime(
        source, tmp_path / "q.onnx", operators=operators, per_channel=not operators, shape=shape
    )
    whole = rewritten(path, AVX512_VNNI)
    floats = {name for name, d in whole.decisions.items() if d.precision != "int8"}
    assert {name.split("/")[0] for name in floats} == ({"up", "wide"} if operators else set())
    (x,) = images(1, 7, shape)
    expected = runtime(path, x.numpy())
    agrees(evaluate_exactly(whole.module, x)[0].numpy(), expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "quantizer"),
    [("mobilenet_v2", "x86"), ("mobilenet_v2", "xnnpack"), ("resnet18", "xnnpack")],
)
def test_exported_programs_run_in_whole_numbers(name: str, quantizer: str, folder: Path) -> None:
    converted = by_pt2e(network(name), quantizer)
    path = folder / f"{name}.pt2"
    torch.export.save(torch.export.export(converted, (images(1, 7)[0],)), path)
    whole = rewritten(path, AVX512_VNNI)
    all_whole(whole)
    for x in images(2, 7):
        with torch.no_grad():
            expected = converted(x).numpy()
        agrees(evaluate_exactly(whole.module, x)[0].numpy(), expected)
