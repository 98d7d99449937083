"""Comparing models: every pair of kinds, layer by layer, and every wrong input."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

import subpc
from subpc.algorithms.dfmpc.config import DfmpcConfig
from subpc.bench.model_files import export_onnx
from subpc.comparison.compare import compare
from subpc.comparison.deviations import output_error
from subpc.comparison.names import match_layers, module_path
from subpc.comparison.samples import Samples
from subpc.compression.compress import compress_file
from subpc.errors import ConfigError, ModelFileError
from subpc.machine.target import parse_target
from tests.subpc.small_net import ARCH, SHAPE, save_state, small_net

needs_bytes = pytest.mark.skipif(
    not parse_target("llvm -mcpu=native").isa.dot, reason="this CPU does not multiply bytes"
)
LAYERS = ["stem", "block.conv1", "block.conv2", "fc"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network as weights, ONNX and library, and all of it with one pruned layer."""
    folder = tmp_path_factory.mktemp("models")
    for name, pruned in (("dense", ""), ("pruned", "block.conv2")):
        net = small_net(pruned=pruned)
        save_state(folder / f"{name}.pth", pruned=pruned)
        export_onnx(net.eval(), (torch.rand(SHAPE),), folder / f"{name}.onnx")
        subpc.compile(net, torch.rand(SHAPE), output=folder / f"{name}.so")
    np.save(
        folder / "x.npy",
        np.random.default_rng(1).standard_normal((10, *SHAPE[1:])).astype(np.float32),
    )
    return folder


@pytest.mark.parametrize("a", ["dense.pth", "dense.onnx", "dense.so"])
@pytest.mark.parametrize("b", ["dense.pth", "dense.onnx", "dense.so"])
def test_the_same_network_agrees_in_every_layer(models: Path, a: str, b: str) -> None:
    report = compare(models / a, models / b, models / "x.npy", arch=ARCH, runs=0)
    assert report.outputs[0].top1 == 1
    assert report.outputs[0].relative < 1e-5
    assert len(report.layers) == len(LAYERS)
    assert all(row.relative is not None and row.relative < 1e-5 for row in report.layers)
    assert report.skipped == {}
    assert (report.samples, report.layer_samples) == (10, 8)


@needs_bytes
@pytest.mark.parametrize("a", ["dense.pth", "dense.onnx", "dense.so"])
def test_a_library_of_integers_is_compared_in_every_layer(
    models: Path, tmp_path: Path, a: str
) -> None:
    images = np.random.default_rng(2).standard_normal((16, *SHAPE[1:])).astype(np.float32)
    np.save(tmp_path / "images.npy", images)
    library = tmp_path / "int8.so"
    subpc.compile(
        small_net(),
        torch.rand(SHAPE),
        precision="int8",
        calibration=tmp_path / "images.npy",
        output=library,
    )
    report = compare(models / a, library, models / "x.npy", arch=ARCH, runs=0)
    assert len(report.layers) == len(LAYERS)
    assert report.skipped == {}
    errors = [row.relative for row in report.layers]
    assert all(error is not None and 1e-4 < error < 0.05 for error in errors)


@pytest.mark.parametrize("a", ["dense.pth", "dense.onnx", "dense.so"])
@pytest.mark.parametrize("b", ["pruned.pth", "pruned.onnx", "pruned.so"])
def test_the_layer_that_was_pruned_is_named(models: Path, a: str, b: str) -> None:
    report = compare(models / a, models / b, models / "x.npy", arch=ARCH, runs=0)
    assert report.worst is not None
    assert module_path(report.worst.layer) == "block.conv2"
    before = [row.relative for row in report.layers][:2]
    assert all(error is not None and error < 1e-5 for error in before)
    assert report.worst.relative is not None
    assert report.worst.relative > 0.05
    assert "block" in report.verdict
    assert report.outputs[0].kl is not None
    assert report.outputs[0].kl > 1e-6


def test_speed_and_size_of_both(models: Path) -> None:
    report = compare(models / "dense.pth", models / "dense.so", arch=ARCH, shapes=[SHAPE], runs=4)
    assert report.a.timing is not None
    assert report.b.timing is not None
    assert report.speed_ratio == pytest.approx(report.a.timing.p50 / report.b.timing.p50)
    assert (report.a.engine, report.b.engine) == ("torch", "subpc")
    assert report.b.file_bytes == (models / "dense.so").stat().st_size
    assert report.data.startswith("random numbers")
    assert type(report).from_dict(report.to_dict()) == report


def test_images_from_a_folder(models: Path, tmp_path: Path) -> None:
    for index in range(3):
        (tmp_path / f"class{index}").mkdir()
        Image.new("RGB", (20 + index, 30), (80 * index, 10, 200)).save(
            tmp_path / f"class{index}" / "a.png"
        )
    (tmp_path / "class0" / "broken.jpg").write_text("no image")
    report = compare(models / "dense.so", models / "pruned.so", tmp_path, runs=0)
    assert report.samples == 3
    assert report.data.endswith("3 images, 1 unreadable")


def test_the_numbers_follow_their_definitions() -> None:
    a, b = (
        np.log(np.array([[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]])),
        np.log(np.array([[0.25, 0.5, 0.25], [0.2, 0.2, 0.6]])),
    )
    error = output_error("y", a, b)
    assert error.top1 == 0.5
    assert error.kl == pytest.approx((0.5 * np.log(2) - 0.25 * np.log(2)) / 2)
    assert error.max_error == pytest.approx(np.log(2))
    assert error.relative == pytest.approx(np.linalg.norm(a - b) / np.linalg.norm(a))


def test_the_divergence_of_what_is_the_same_but_for_rounding_is_not_negative() -> None:
    """Summed in floating point, the terms of some rows end a hair below zero."""
    draw = np.random.default_rng(0)
    for _ in range(50):
        a = draw.standard_normal((1, 10)).astype("float32")
        kl = output_error("y", a, np.nextafter(a, np.float32(np.inf))).kl
        assert kl is not None
        assert 0 <= kl < 1e-12


def test_the_last_batch_is_filled_up() -> None:
    samples = Samples(arrays=(np.arange(5.0),), source="")
    assert [(a[0].tolist(), count) for a, count in samples.batches(2)] == [
        ([0, 1], 2),
        ([2, 3], 2),
        ([4, 4], 1),
    ]


@pytest.mark.parametrize(
    ("node", "module"),
    [
        ("/conv1/Conv", "conv1"),
        ("/layer1/layer1.0/conv1/Conv", "layer1.0.conv1"),
        ("/layer2/layer2.0/downsample/downsample.0/Conv", "layer2.0.downsample.0"),
        ("stem", "stem"),
    ],
)
def test_paths_of_onnx_nodes_are_modules(node: str, module: str) -> None:
    assert module_path(node) == module


def wrong(models: Path, tmp_path: Path, data: str, **options: object) -> str:
    (tmp_path / "empty").mkdir(exist_ok=True)
    (tmp_path / "text.npy").write_text("hello")
    np.save(tmp_path / "double.npy", np.zeros(SHAPE))
    np.save(tmp_path / "wide.npy", np.zeros((2, 3, 16, 17), np.float32))
    np.save(tmp_path / "pickle.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(ConfigError) as caught:
        compare(
            models / "dense.so",
            models / "pruned.so",
            tmp_path / data if data else None,
            runs=0,
            **options,
        )  # type: ignore[arg-type]
    assert len(str(caught.value).splitlines()) <= 2
    return str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("empty", "holds no images"),
        ("none", "does not exist"),
        ("text.npy", "cannot read"),
        ("pickle.npy", "cannot read"),
        ("double.npy", "astype('float32')"),
        ("wide.npy", "takes 1,3,16,16"),
    ],
)
def test_wrong_data(models: Path, tmp_path: Path, data: str, message: str) -> None:
    assert message in wrong(models, tmp_path, data)


def test_no_shape_and_no_data(models: Path) -> None:
    with pytest.raises(ConfigError, match="neither model says its input shape"):
        compare(models / "dense.pth", models / "pruned.pth", arch=ARCH, runs=0)


def test_a_file_that_is_no_model(models: Path, tmp_path: Path) -> None:
    (tmp_path / "model.so").write_text("hello")
    with pytest.raises(ModelFileError, match="too short: not a subpc library"):
        compare(tmp_path / "model.so", models / "dense.so", runs=0)


def renamed(path: Path, spell: Callable[[int], str]) -> None:
    """Other names for everything in an ONNX file but its inputs and outputs."""
    model = onnx.load(path)
    tensors = {
        tensor.name: f"onnx::T_{index}" for index, tensor in enumerate(model.graph.initializer)
    }
    for tensor in model.graph.initializer:
        tensor.name = tensors[tensor.name]
    for index, node in enumerate(model.graph.node):
        node.name = spell(index)
        for place, name in enumerate(node.input):
            node.input[place] = tensors.get(name, name)
    onnx.save(model, path)


@pytest.mark.parametrize("spell", ["conv/{}", "{}"], ids=["punctuation", "numbers"])
def test_a_file_and_its_compressed_self(spell: str, models: Path, tmp_path: Path) -> None:
    path, small = tmp_path / "n.onnx", tmp_path / "n.pt"
    shutil.copy(models / "dense.onnx", path)
    renamed(path, lambda index: spell.format(index))
    compress_file(path, DfmpcConfig.paper(low_bits=8, high_bits=8), small)
    report = compare(path, small, runs=0)
    assert len(report.layers) == len(LAYERS)
    assert report.skipped == {}
    assert all(row.relative is not None and row.relative < 0.05 for row in report.layers)


def test_names_that_have_nothing_in_common_are_matched_by_order_and_it_is_said(
    models: Path, tmp_path: Path
) -> None:
    path = tmp_path / "n.onnx"
    shutil.copy(models / "pruned.onnx", path)
    renamed(path, lambda index: f"node{index}")
    report = compare(models / "dense.onnx", path, models / "x.npy", runs=0)
    assert len(report.by_order) == len(report.layers) == len(LAYERS)
    assert report.worst is not None
    assert module_path(report.worst.layer) == "block.conv2"
    assert all(row.note.startswith("node") for row in report.layers)


def test_layers_between_those_of_the_same_name() -> None:
    first = {"stem": (8,), "a": (4,), "b": (5,), "head": (2,), "last": (1,)}
    assert match_layers(first, {"stem": (8,), "x": (4,), "y": (5,), "head": (2,)}) == (
        {"stem": "stem", "a": "x", "b": "y", "head": "head"},
        ("a", "b"),
    )
    # Another number of layers: those of the same shape.
    assert match_layers(first, {"stem": (8,), "y": (5,), "head": (2,)})[0] == {
        "stem": "stem",
        "b": "y",
        "head": "head",
    }
    assert match_layers({"a.b": (1,), "a/b": (1,)}, {"a_b": (1,)})[0].keys() <= {"a.b"}
