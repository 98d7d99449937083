"""Networks that ONNX Runtime, NNCF and PyTorch quantized run in whole numbers from end to end, and
compute what ONNX Runtime and PyTorch compute."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

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
@pytest.mark.parametrize("kind", _kinds())
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
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
