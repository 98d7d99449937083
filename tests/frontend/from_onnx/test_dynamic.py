"""Convolutions of whole numbers whose scales are those of each input."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import subpc
from tests.frontend.from_onnx.test_quantized import CONV, SHAPE, W

RNG = np.random.default_rng(0)
INTEGER = {
    "bytes": ((W.astype(int) + 128).astype(np.uint8), np.uint8(120)),
    "signed": (W, np.int8(3)),
    "a zero point a filter": (W, np.arange(-3, 3, dtype=np.int8)),
    "none": (W, None),
}


@pytest.mark.parametrize("case", INTEGER)
def test_convolutions_that_are_quantized_while_they_run(case: str, tmp_path: Path) -> None:
    """Scales are those of each input: what ONNX Runtime's dynamic quantization writes."""
    weight, zero = INTEGER[case]
    stored = {"w": weight, "scale": np.float32(0.01), **({} if zero is None else {"zero": zero})}
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["a", "a_scale", "a_zero"]),
        helper.make_node(
            "ConvInteger",
            ["a", "w", "a_zero", *(["zero"] if zero is not None else [])],
            ["sums"],
            **CONV,
        ),
        helper.make_node("Cast", ["sums"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["a_scale", "scale"], ["both"]),
        helper.make_node("Mul", ["floats", "both"], ["out"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()],
    )
    opsets = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "net.onnx")
    x = RNG.standard_normal(SHAPE).astype(np.float32)
    point = 0 if zero is None else np.asarray(zero, int).reshape(-1, 1, 1, 1)
    codes, scale, offset = dynamic(x)
    sums = torch.nn.functional.conv2d(
        torch.from_numpy(codes - offset), torch.from_numpy(weight.astype(int) - point), padding=1
    )
    expected = sums.numpy() * (scale * np.float32(0.01))
    compiled = subpc.compile(tmp_path / "net.onnx")
    np.testing.assert_allclose(compiled(x), expected, rtol=1e-6)
    assert [layer.kernel for layer in compiled.report.layers] == ["dense_conv"]
    whole = subpc.compile(tmp_path / "net.onnx", precision="int8")(x)
    assert np.abs(whole - expected).max() < 0.03 * np.abs(expected).max()


def dynamic(x: np.ndarray) -> tuple[np.ndarray, np.float32, int]:
    """DynamicQuantizeLinear: codes, scale and zero point, as ONNX defines them."""
    low, high = min(x.min(), np.float32(0)), max(x.max(), np.float32(0))
    scale = np.float32((high - low) / np.float32(255))
    zero = int(np.clip(np.rint(-low / scale), 0, 255))
    return np.clip(np.rint(x / scale) + zero, 0, 255).astype(int), scale, zero
