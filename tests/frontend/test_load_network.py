"""A file of any kind as a network of plain layers: the same outputs, the same names, for batches of
any size, there and back."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from subpc.algorithms.file_format.compressed_file import CompressedFile, save_compressed
from subpc.algorithms.file_format.graph.network import GraphNetwork
from subpc.algorithms.network.pairing import find_pairs
from subpc.demo.random_networks import set_statistics
from subpc.errors import ConfigError, UnsupportedModelError
from subpc.frontend.architectures.build import build_arch
from subpc.frontend.from_torch.network import exported_network
from subpc.frontend.from_torch.to_graph import network_from_program
from subpc.frontend.load_network import Network, load_network

TOLERANCE = 1e-5
LITE0 = "subpc.frontend.architectures.efficientnet_lite0:efficientnet_lite0"
Shape = tuple[int, ...]


def seeded(arch: str, channels: int = 3) -> nn.Module:
    """The architecture with random weights and batch-norm statistics."""
    torch.manual_seed(0)
    return set_statistics(build_arch(arch), (1, channels, 64, 64))


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest difference as a share of the largest value."""
    return float((a - b).abs().max() / a.abs().max())


@torch.no_grad()
def check(model: nn.Module, network: nn.Module, shape: Shape) -> None:
    """Two images at once through both."""
    x = torch.randn(2, *shape[1:], generator=torch.Generator().manual_seed(1))
    expected = model(x)
    assert distance(expected[0], expected[1]) > 100 * TOLERANCE
    assert distance(expected, network(x)) < TOLERANCE


def through_file(network: Network, folder: Path) -> nn.Module:
    """Written as a compressed file and read again."""
    file = CompressedFile(
        arch=network.arch,
        state_dict=network.model.state_dict(),
        graph=network.graph,
        input_shape=network.input_shape,
    )
    save_compressed(folder / "again.pt", file)
    return load_network(folder / "again.pt").model


NETS = [
    pytest.param("resnet18", (1, 3, 64, 64), id="resnet18"),
    pytest.param("mobilenet_v2", (1, 3, 64, 64), id="mobilenet_v2"),
    pytest.param("densenet121", (1, 3, 64, 64), marks=pytest.mark.slow, id="densenet121"),
    pytest.param(LITE0, (1, 3, 64, 64), marks=pytest.mark.slow, id="efficientnet_lite0"),
    pytest.param("shufflenet_v2_x0_5", (1, 3, 64, 64), marks=pytest.mark.slow, id="shufflenet"),
    pytest.param("mobilenet_v3_small", (1, 3, 64, 64), marks=pytest.mark.slow, id="mobilenet_v3"),
    pytest.param("convnext_tiny", (1, 3, 64, 64), marks=pytest.mark.slow, id="convnext"),
]


@pytest.mark.parametrize(("arch", "shape"), NETS)
def test_an_exported_program(arch: str, shape: Shape, tmp_path: Path) -> None:
    model = seeded(arch)
    torch.export.save(torch.export.export(model, (torch.rand(shape),)), tmp_path / "m.pt2")
    network = load_network(tmp_path / "m.pt2")
    assert (network.arch, network.input_shape) == ("graph", shape)
    assert set(network.model.state_dict()) == set(model.state_dict())
    check(model, network.model, shape)
    check(model, through_file(network, tmp_path), shape)


def test_pairs_are_those_of_the_original() -> None:
    model = seeded("resnet18")
    network = network_from_program(exported_network(model, (torch.rand(1, 3, 64, 64),)))
    ours, theirs = find_pairs(network), find_pairs(model)
    assert [(p.first, p.second) for p in ours.pairs] == [(p.first, p.second) for p in theirs.pairs]
    assert len(ours.pairs) == 8


@pytest.mark.parametrize(
    "way",
    [torch.jit.script, lambda m: torch.jit.trace(m, torch.rand(1, 3, 64, 64))],
    ids=["script", "trace"],
)
def test_torchscript_needs_a_shape(way: Callable[[nn.Module], Any], tmp_path: Path) -> None:
    model = seeded("resnet18")
    torch.jit.save(way(model), str(tmp_path / "m.pt"))
    with pytest.raises(ConfigError, match="--shape"):
        load_network(tmp_path / "m.pt")
    network = load_network(tmp_path / "m.pt", shape=(1, 3, 64, 64))
    assert "layer1.0.conv1.weight" in network.model.state_dict()
    check(model, network.model, (1, 3, 64, 64))


def test_a_program_that_was_decomposed_further(tmp_path: Path) -> None:
    model = seeded("subpc:resnet20", channels=1)
    program = torch.export.export(model, (torch.rand(1, 1, 28, 28),)).run_decompositions()
    torch.export.save(program, tmp_path / "m.pt2")
    network = load_network(tmp_path / "m.pt2").model
    assert {"conv1.weight", "bn1.running_mean", "fc.weight"} <= set(network.state_dict())
    check(model, network, (1, 1, 28, 28))


def test_an_open_batch_becomes_one(tmp_path: Path) -> None:
    model = seeded("subpc:resnet20", channels=1)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(model, (torch.rand(2, 1, 28, 28),), dynamic_shapes=({0: batch},))
    torch.export.save(program, tmp_path / "m.pt2")
    network = load_network(tmp_path / "m.pt2")
    assert network.input_shape == (1, 1, 28, 28)
    check(model, network.model, (1, 1, 28, 28))


def test_code_of_the_users_own_becomes_plain_layers(tmp_path: Path) -> None:
    torch.save(seeded(LITE0).state_dict(), tmp_path / "w.pt")
    assert load_network(tmp_path / "w.pt", arch=LITE0).arch == LITE0
    network = load_network(tmp_path / "w.pt", arch=LITE0, shape=(1, 3, 64, 64))
    assert (network.arch, type(network.model)) == ("graph", GraphNetwork)


def test_names_from_packages_stay_names(tmp_path: Path) -> None:
    torch.save(seeded("resnet18").state_dict(), tmp_path / "w.pt")
    network = load_network(tmp_path / "w.pt", arch="torchvision:resnet18", shape=(1, 3, 64, 64))
    assert (network.arch, network.graph) == ("torchvision:resnet18", None)
    assert network.input_shape == (1, 3, 64, 64)


def _light(name: str) -> Path:
    return Path(onnx.__file__).parent / "backend/test/data/light" / f"light_{name}.onnx"


def _rapidocr(name: str) -> Path:
    spec = importlib.util.find_spec("rapidocr_onnxruntime")
    if spec is None or spec.origin is None:
        pytest.skip("rapidocr-onnxruntime is not installed")
    return Path(spec.origin).parent / "models" / f"{name}.onnx"


def _with_random_weights(path: Path, folder: Path) -> Path:
    """The light networks are filled with constants, which hide what is wrong."""
    model = onnx.load(path)
    draw = np.random.default_rng(0)
    for tensor in model.graph.initializer:
        value = onnx.numpy_helper.to_array(tensor)
        if value.dtype == np.float32 and value.size > 1:
            scale = 1 / np.sqrt(np.prod(value.shape[1:])) if value.ndim > 1 else 1.0
            random = (
                draw.random(value.shape) + 0.5
                if value.ndim == 1
                else draw.normal(size=value.shape) * scale
            )
            tensor.CopyFrom(onnx.numpy_helper.from_array(random.astype(np.float32), tensor.name))
    onnx.save(model, folder / path.name)
    return folder / path.name


def _reference(path: Path, x: np.ndarray) -> np.ndarray:
    """ONNX Runtime as the file says: its own rewriting of activations costs digits."""
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options)
    (result, *_) = session.run(None, {session.get_inputs()[0].name: x})
    return np.asarray(result)


def _check_onnx(path: Path, shape: Shape | None, folder: Path) -> Network:
    network = load_network(path, shape=shape)
    x = np.random.default_rng(0).normal(size=network.input_shape).astype(np.float32)
    expected = _reference(path, x)
    for model in (network.model, through_file(network, folder)):
        with torch.no_grad():
            result = model(torch.from_numpy(x))
        result = result[0] if isinstance(result, tuple) else result
        # Absolute for outputs that a sigmoid has pushed to nothing.
        scale = max(1.0, float(np.abs(expected).max()))
        assert np.abs(expected - result.numpy()).max() < TOLERANCE * scale
    return network


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["resnet50", "densenet121", "shufflenet", "squeezenet", "inception_v1", "inception_v2"]
)
def test_the_networks_that_onnx_brings(name: str, tmp_path: Path) -> None:
    try:
        path = _with_random_weights(_light(name), tmp_path)
    except FileNotFoundError:
        pytest.skip("onnx was installed without its test data")
    _check_onnx(path, None, tmp_path)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("ch_ppocr_mobile_v2.0_cls_infer", (1, 3, 48, 192)),
        ("ch_PP-OCRv4_det_infer", (1, 3, 96, 96)),
        pytest.param("ch_PP-OCRv4_rec_infer", (1, 3, 48, 320), marks=pytest.mark.slow),
    ],
)
def test_trained_networks_that_nobody_here_wrote(name: str, shape: Shape, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--shape"):
        load_network(_rapidocr(name))
    _check_onnx(_rapidocr(name), shape, tmp_path)


def test_a_scale_behind_a_batch_norm_goes_into_it(tmp_path: Path) -> None:
    network = _check_onnx(_scaled_norm(tmp_path / "m.onnx"), None, tmp_path)
    kinds = [kind for kind, _ in network.model.subpc_graph.layers.values()]  # type: ignore[union-attr]
    assert kinds == ["conv2d", "batch_norm", "conv2d"]
    assert len(find_pairs(network.model).pairs) == 1


def _scaled_norm(path: Path) -> Path:
    """conv -> batch norm -> * -> + -> relu -> conv, as Caffe networks come."""
    draw = np.random.default_rng(0)
    weights = {
        "w1": (4, 3, 3, 3),
        "w2": (2, 4, 1, 1),
        "s": (4,),
        "b": (4,),
        "m": (4,),
        "v": (4,),
        "k": (4, 1, 1),
        "o": (4, 1, 1),
    }
    tensors = [
        onnx.numpy_helper.from_array((draw.random(shape) + 0.2).astype(np.float32), name)
        for name, shape in weights.items()
    ]
    make = onnx.helper.make_node
    nodes = [
        make("Conv", ["x", "w1"], ["c"], name="first"),
        make("BatchNormalization", ["c", "s", "b", "m", "v"], ["n"], name="norm"),
        make("Mul", ["n", "k"], ["p"]),
        make("Add", ["p", "o"], ["q"]),
        make("Relu", ["q"], ["r"]),
        make("Conv", ["r", "w2"], ["y"], name="second"),
    ]
    info = onnx.helper.make_tensor_value_info
    inputs, outputs = [info("x", 1, [1, 3, 8, 8])], [info("y", 1, [1, 2, 6, 6])]
    graph = onnx.helper.make_graph(nodes, "g", inputs, outputs, tensors)
    opset = onnx.helper.make_opsetid("", 13)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    return path


class Climbs(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cummax(x, 1)[0]


class Sorts(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.sort(torch.relu(x))[0]


def test_all_operators_that_cannot_be_kept_are_named_at_once() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = Climbs(), Sorts()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.first(x) + self.second(x)

    with pytest.raises(UnsupportedModelError) as caught:
        network_from_program(exported_network(Both(), (torch.rand(1, 3, 8, 8),)))
    assert all(
        words in str(caught.value)
        for words in ("cummax", "in first", "sort", "in second", "2 unsupported")
    )
    assert len(str(caught.value).splitlines()) == 2


def test_two_inputs_are_refused() -> None:
    class Adds(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x + y

    with pytest.raises(UnsupportedModelError, match="2 inputs"):
        network_from_program(
            exported_network(Adds(), (torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8)))
        )
