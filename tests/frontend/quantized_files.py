"""Networks with random weights, quantized by the tools that users have, and what ONNX Runtime
computes with them."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from subpc.demo.random_networks import set_statistics
from subpc.frontend.architectures.build import build_arch
from subpc.frontend.from_torch.to_onnx_file import export_onnx

SHAPE = (1, 3, 64, 64)


def images(count: int, seed: int, shape: Sequence[int] = SHAPE) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(tuple(shape), generator=generator) for _ in range(count)]


def network(name: str) -> nn.Module:
    """MobileNetV2 ends early: with random weights every rounding that goes the other way grows from
    layer to layer, until nothing can be compared."""
    torch.manual_seed(0)
    net = build_arch(name)
    if name == "mobilenet_v2":
        net.features = net.features[:8]
        net.classifier = nn.Linear(64, 100)
    return set_statistics(net, SHAPE)


def exported(net: nn.Module, path: Path, shape: Sequence[int] = SHAPE) -> Path:
    export_onnx(net, (torch.zeros(tuple(shape)),), path)
    return path


def by_runtime(
    source: Path, target: Path, *, operators: bool = False, shape: Sequence[int] = SHAPE, **how: Any
) -> Path:
    """As onnxruntime.quantization writes it: pairs of quantize and dequantize, or operators on
    codes. how: options of quantize_static."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    name = onnx.load(source).graph.input[0].name

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        left: Iterator[torch.Tensor] = iter(images(4, 1, shape))

        def get_next(self) -> dict[str, np.ndarray] | None:
            x = next(self.left, None)
            return None if x is None else {name: x.numpy()}

    kind = QuantFormat.QOperator if operators else QuantFormat.QDQ
    logging.disable()
    try:
        quantize_static(source, target, Reader(), quant_format=kind, **how)
    finally:
        logging.disable(logging.NOTSET)
    return target


def by_nncf(source: Path, target: Path) -> Path:
    """As nncf.quantize writes it."""
    nncf = pytest.importorskip("nncf")
    model = onnx.load(source)
    data = [{model.graph.input[0].name: x.numpy()} for x in images(4, 1)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        onnx.save(nncf.quantize(model, nncf.Dataset(data), subset_size=len(data)), target)
    return target


def by_pt2e(
    net: nn.Module,
    quantizer: str,
    shape: Sequence[int] = SHAPE,
    samples: Sequence[torch.Tensor] = (),
) -> nn.Module:
    """As PyTorch's PT2E leaves it: a module of operators on codes. quantizer: "x86", whose
    activations are bytes without a sign, or "xnnpack", whose codes all have one. samples: batches
    of `shape` that ranges are measured on, random ones by default."""
    pytest.importorskip("torchao")
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    example = (torch.zeros(tuple(shape)),)
    prepared = prepare_pt2e(torch.export.export(net, example).module(), _quantizer(quantizer))
    for x in samples or images(4, 1, shape):
        prepared(x)
    converted: nn.Module = convert_pt2e(prepared)
    return converted


def _quantizer(name: str) -> Any:
    if name == "x86":
        from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

        found = x86.X86InductorQuantizer()
        return found.set_global(x86.get_default_x86_inductor_quantization_config())
    from torchao.testing.pt2e import _xnnpack_quantizer as xnnpack

    settings = xnnpack.get_symmetric_quantization_config(is_per_channel=True)
    return xnnpack.XNNPACKQuantizer().set_global(settings)


def runtime(path: Path, x: np.ndarray) -> np.ndarray:
    """What ONNX Runtime computes where it does what the file says, operator by operator."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    result: np.ndarray = session.run(None, {session.get_inputs()[0].name: x})[0]
    return result
