"""Engines that run the model in 8 bits: their own tools quantize it, once, in a process of its
own."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from subpc.bench import bench
from subpc.bench.engines import ENGINES
from subpc.bench.model_files import RivalFiles
from subpc.bench.process import WorkerError
from subpc.bench.report import EngineResult
from subpc.cli.main import run
from subpc.compiler.compile_model import compile
from subpc.errors import ConfigError
from subpc.frontend.from_torch.to_onnx_file import export_onnx
from subpc.runtime.deviation import share_of_range
from tests.subpc.bench.reports import report
from tests.subpc.small_net import SHAPE, small_net

IMAGE = np.random.default_rng(1).standard_normal(SHAPE).astype(np.float32)


def files(folder: Path, images: Any = None, batch: int = 1, model: Any = None) -> RivalFiles:
    """The small network's files for inputs of this batch."""
    shapes = [(batch, *SHAPE[1:])]
    samples = None if images is None else [images.reshape(-1, *shapes[0])]
    return RivalFiles(model or small_net(), shapes, folder, threads=1, calibration=samples)


def first_scale(file: Path) -> float:
    """The scale of the first tensor that an ONNX file rounds: the image's."""
    graph = onnx.load(file).graph
    node = next(node for node in graph.node if node.op_type == "QuantizeLinear")
    scale = next(array for array in graph.initializer if array.name == node.input[1])
    return float(numpy_helper.to_array(scale))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnxruntime-int8", "openvino-int8"])
def test_the_quantized_network_is_near_the_float_one(engine: str, tmp_path: Path) -> None:
    made = files(tmp_path, images=np.concatenate([IMAGE, IMAGE[:, :, ::-1]]))
    file = made.path(engine)
    assert made.path(engine) == file, "it is made once"
    assert file.is_relative_to(tmp_path)
    with torch.no_grad():
        expected = small_net()(torch.from_numpy(IMAGE)).numpy()
    (got,) = ENGINES[engine](str(file), {"image": IMAGE}, 1)()
    assert 1e-6 < share_of_range(got, expected) < 0.05


@pytest.mark.slow
def test_weights_are_bytes_with_a_scale_for_each_filter(tmp_path: Path) -> None:
    made = files(tmp_path, images=IMAGE)
    arrays = {
        a.name: numpy_helper.to_array(a)
        for a in onnx.load(made.path("onnxruntime-int8")).graph.initializer
    }
    weights = [a for a in arrays.values() if a.dtype == np.int8 and a.ndim == 4]
    assert sorted(a.shape for a in weights) == [(32, 3, 3, 3), (32, 32, 3, 3), (32, 32, 3, 3)]
    assert all(np.abs(a.astype(int)).max(axis=(1, 2, 3)).min() == 127 for a in weights)
    assert made.details["onnxruntime-int8"] in ("U8S8", "S8S8")


@pytest.mark.slow
def test_ranges_come_from_the_images_that_are_given(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    scales = [
        first_scale(files(folder, images=images).path("onnxruntime-int8"))
        for folder, images in ((tmp_path, IMAGE), (tmp_path / "other", 10 * IMAGE))
    ]
    assert scales[0] == pytest.approx((IMAGE.max() - IMAGE.min()) / 255)
    assert scales[1] == pytest.approx(10 * scales[0])


def test_images_fill_inputs_of_the_networks_batch(tmp_path: Path) -> None:
    images = np.arange(4, dtype=np.float32).reshape(4, 1, 1, 1) * np.ones(SHAPE, np.float32)
    (samples,) = files(tmp_path, images=images, batch=2)._samples().values()
    assert samples.shape == (2, 2, *SHAPE[1:])
    assert samples[:, :, 0, 0, 0].tolist() == [[0, 1], [2, 3]]


def test_random_samples_differ_from_each_other(tmp_path: Path) -> None:
    (samples,) = files(tmp_path)._samples().values()
    assert samples.shape[1:] == SHAPE
    assert len(np.unique(samples[:, 0, 0, 0, 0])) == len(samples)


@pytest.mark.slow
def test_a_file_that_is_quantized_already_runs_as_it_is(tmp_path: Path) -> None:
    first = files(tmp_path, images=IMAGE).path("onnxruntime-int8")
    again = files(tmp_path, model=first)
    assert again.path("openvino-int8") == first
    assert again.details == {"openvino-int8": "as the file is"}


@pytest.mark.parametrize("shape", [(0, 3, 16, 16), (4, 3, 16, 17), (3, 16, 16), (4,)])
def test_images_of_another_shape_are_refused(toy: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"\(images, 3, 16, 16\) is needed"):
        bench.time_engines(toy, calibration=np.zeros(shape, np.float32))


def test_an_empty_folder_of_images_is_refused(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["bench", str(toy), "--calibration", str(tmp_path)]) == 2
    assert f"{tmp_path} holds 0 images" in capsys.readouterr().err


def test_a_quantizer_that_is_not_installed_is_named_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nncf.py").write_text("raise ModuleNotFoundError('No module', name='nncf')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(WorkerError, match="pip install nncf"):
        files(tmp_path).path("openvino-int8")


def test_a_quantizer_that_ends_says_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nncf.py").write_text(
        "import sys, os\nprint('out of memory', file=sys.stderr, flush=True)\nos._exit(3)"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(WorkerError, match="the process that quantizes ended: out of memory"):
        files(tmp_path).path("openvino-int8")


@pytest.mark.slow
def test_the_command_times_them_beside_a_float_library(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    library, model = tmp_path / "net.so", tmp_path / "net.onnx"
    compile(small_net(), shapes=[SHAPE], output=library, threads=1)
    export_onnx(small_net(), (torch.from_numpy(IMAGE),), model)
    rivals = "onnxruntime-int8,openvino-int8"
    options = ["--runs", "2", "--rounds", "1", "--threads", "1"]
    assert run(["bench", str(library), "--compare", rivals, "--model", str(model), *options]) == 0
    text = capsys.readouterr().out
    assert text.count("% off") == 2
    assert "nncf" in text


def result(engine: str, precision: str, difference: float | None) -> EngineResult:
    return EngineResult(engine=engine, version="1", precision=precision, difference=difference)


@pytest.mark.parametrize(
    ("ours", "theirs", "difference", "answer"),
    [
        ("float32", "float32", 1e-4, "same"),
        ("float32", "float32", 0.02, "DIFFERS"),
        ("float32", "int8", 0.02, "2.0% off"),
        ("int8", "float32", 0.02, "2.0% off"),
        ("int8", "int8", 1e-4, "same"),
        ("int8", "int8", 0.5, "DIFFERS"),
        ("int8", "float32", None, "DIFFERS"),
    ],
)
def test_answers_are_judged_by_what_they_are_computed_in(
    ours: str, theirs: str, difference: float | None, answer: str
) -> None:
    first, other = result("subpc", ours, None), result("openvino", theirs, difference)
    race = report(first, other)
    assert race.answer(other) == answer
    assert race.answer(first) == ""
