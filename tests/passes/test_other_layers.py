"""Convolutions without a kernel of ours are in the report like all others: under their names, with
the reason, and with a warning."""

import warnings

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn import functional as F

from subpc.compiler.compile_model import compile
from subpc.errors import SlowLayerWarning

SHAPE = (1, 3, 12, 12)


class Dynamic(nn.Module):
    """A convolution whose filters are a mixture that each image chooses, between two ordinary
    ones."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.choice, self.last = nn.Conv2d(3, 8, 3), nn.Linear(8, 4), nn.Conv2d(8, 4, 1)
        self.experts = nn.Parameter(torch.randn(4, 8 * 8 * 9))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).relu()
        share = self.choice(x.mean((2, 3))).softmax(-1)
        return self.last(F.conv2d(x, (share @ self.experts).reshape(8, 8, 3, 3), padding=1).relu())


def compiled_with_warnings(net: nn.Module, x: torch.Tensor) -> tuple[object, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        compiled = compile(net.eval(), x)
    with torch.no_grad():
        assert torch.allclose(compiled(x), net(x), atol=1e-4)
    return compiled, [str(w.message) for w in caught if issubclass(w.category, SlowLayerWarning)]


def test_weights_that_depend_on_the_input() -> None:
    torch.manual_seed(0)
    compiled, said = compiled_with_warnings(Dynamic(), torch.randn(SHAPE))
    report = compiled.report  # type: ignore[attr-defined]
    assert [(layer.name, layer.kind, layer.kernel == "fallback") for layer in report.layers] == [
        ("stem", "conv", False),
        ("choice", "linear", False),
        ("experts", "linear", False),
        ("experts#2", "conv", True),
        ("last", "conv", False),
    ]
    assert report.summary.startswith("0/3 convs sparse, 3 dense")
    assert report.summary.endswith("; 1 in the fallback")
    assert "weights depend on the input" in report.layers[3].reason
    assert said == [
        "in the fallback, many times slower than with a kernel: layer experts#2 (weights depend on"
        " the input)"
    ]
    assert list(report.metadata.warnings) == said


CASES: dict[str, tuple[nn.Module, tuple[int, ...], str]] = {
    "1-D": (
        nn.Sequential(nn.Conv1d(3, 8, 3), nn.ReLU(), nn.Conv1d(8, 8, 3, groups=2)),
        (1, 3, 20),
        "1-D convolution",
    ),
    "3-D": (
        nn.Sequential(nn.Conv3d(3, 8, 3), nn.BatchNorm3d(8), nn.ReLU()),
        (1, 3, 6, 6, 6),
        "3-D convolution",
    ),
    "transposed": (
        nn.Sequential(nn.ConvTranspose1d(3, 8, 2, 2), nn.ReLU()),
        (1, 3, 20),
        "1-D transposed convolution",
    ),
}


@pytest.mark.parametrize("kind", CASES)
def test_other_kinds_of_convolutions(kind: str) -> None:
    net, shape, reason = CASES[kind]
    compiled, said = compiled_with_warnings(net, torch.randn(shape))
    report = compiled.report  # type: ignore[attr-defined]
    convolutions = [name for name, part in net.named_modules() if "Conv" in type(part).__name__]
    assert [layer.name for layer in report.convs] == convolutions
    assert all(
        layer.reason.split(":")[0] == reason and layer.flops_dense > 0 for layer in report.convs
    )
    assert convolutions[0] in {step.layer for step in report.metadata.functions[0].steps}
    assert len(said) == 1


def test_no_warning_where_every_convolution_has_a_kernel() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, groups=1), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 8, 3, groups=2)
    )
    compiled, said = compiled_with_warnings(net, torch.randn(SHAPE))
    assert said == []
    assert compiled.report.in_fallback == ()  # type: ignore[attr-defined]


def test_products_with_weights_that_no_kernel_takes_are_counted() -> None:
    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = nn.Parameter(torch.randn(3, 12, 5))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[0] @ self.experts

    compiled, said = compiled_with_warnings(Experts(), torch.randn(SHAPE))
    report = compiled.report  # type: ignore[attr-defined]
    assert [(layer.name, layer.kind) for layer in report.in_fallback] == [("experts", "linear")]
    assert report.summary == "no convolutions, 1 fully connected layers; 1 in the fallback"
    assert said == []  # a product is no convolution


def test_attention_is_no_layer() -> None:
    class Attention(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x @ x.transpose(-1, -2)).softmax(-1) @ x

    compiled, _ = compiled_with_warnings(Attention(), torch.randn(1, 2, 8, 8))
    assert compiled.report.layers == ()  # type: ignore[attr-defined]


@pytest.mark.parametrize("per_channel", [False, True])
def test_quantized_weights_of_an_onnx_file_are_weights(tmp_path, per_channel: bool) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(0)
    codes = rng.integers(-127, 127, (8, 3, 3, 3)).astype(np.int8)
    scale = rng.random(8).astype(np.float32) if per_channel else np.array(0.01, np.float32)
    zero = np.zeros(scale.shape, np.int8)
    nodes = [
        helper.make_node(
            "DequantizeLinear", ["conv.weight_codes", "conv.scale", "zero"], ["w"], axis=0
        ),
        helper.make_node("Conv", ["x", "w"], ["y"], name="conv"),
    ]
    values = [
        numpy_helper.from_array(v, n)
        for v, n in ((codes, "conv.weight_codes"), (scale, "conv.scale"), (zero, "zero"))
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(SHAPE))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        values,
    )
    path = tmp_path / "net.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path
    )
    compiled, x = compile(path), rng.standard_normal(SHAPE).astype(np.float32)
    (layer,) = compiled.report.layers
    assert layer.kernel != "fallback"
    weight = codes.astype(np.float32) * scale.reshape(-1, 1, 1, 1)
    np.testing.assert_allclose(
        compiled(x), F.conv2d(torch.tensor(x), torch.tensor(weight)).numpy(), rtol=1e-4, atol=1e-4
    )
