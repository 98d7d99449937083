"""ONNX's windows: padding by name, rounding up, dilation and output shapes, the same for every
reader of the file."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from subpc.compiler.compile_model import compile
from subpc.errors import ModelFileError, SubpcError
from subpc.frontend.from_onnx.network import OnnxFile
from subpc.frontend.from_onnx.to_graph import network_from_onnx
from subpc.frontend.from_onnx.trace import OnnxTracer
from tests.frontend.from_onnx.poolings import Pooling, along

TOLERANCE = 1e-5
NAMES = ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")


def model_of(
    nodes: Sequence[onnx.NodeProto],
    shape: Sequence[int],
    weights: dict[str, np.ndarray] | None = None,
    opset: int = 22,
) -> Any:
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None) for node in nodes],
        [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def image(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32) - 1


def check_all_readers(
    cases: Sequence[Pooling],
    x: np.ndarray,
    folder: Path,
    opset: int = 22,
    readers: str = "compile compress trace",
) -> None:
    path = folder / "m.onnx"
    onnx.save(
        model_of(
            [case.node(x.ndim - 2, f"y{i}") for i, case in enumerate(cases)], x.shape, opset=opset
        ),
        path,
    )
    got: dict[str, Any] = {}
    if "compile" in readers:
        got["compile"] = compile(path)(x)
    if "compress" in readers:
        got["compress"] = [
            y.detach().numpy()
            for y in network_from_onnx(OnnxFile(path), None)[0](torch.from_numpy(x))
        ]
    if "trace" in readers:
        got["trace"] = OnnxTracer(OnnxFile(path).network([])).run([x]).outputs
    for reader, results in got.items():
        for case, result in zip(cases, results, strict=True):
            expected = case.expected(x)
            assert result.shape == expected.shape, (reader, case)
            assert np.abs(result - expected).max() < TOLERANCE, (reader, case)


# What users' networks have, and what TVM's importer read as something else.
CASES = [
    Pooling(
        op="MaxPool", kernel=1, stride=2, name="SAME_UPPER"
    ),  # the shortcut of a TensorFlow ResNet
    Pooling(op="MaxPool", kernel=2, stride=3, name="SAME_UPPER"),
    Pooling(op="MaxPool", kernel=2, stride=3, name="SAME_LOWER"),
    Pooling(op="MaxPool", kernel=3, stride=2, name="SAME_LOWER"),
    Pooling(op="MaxPool", kernel=2, stride=2, dilation=2, name="SAME_UPPER"),
    Pooling(op="MaxPool", kernel=2, stride=3, ceil=1, pads=(1, 0)),
    Pooling(op="MaxPool", kernel=2, stride=2, ceil=1, name="VALID"),
    Pooling(op="AveragePool", kernel=3, stride=2, name="SAME_UPPER"),
    Pooling(op="AveragePool", kernel=3, stride=2, name="SAME_LOWER", counted=1),
    Pooling(op="AveragePool", kernel=1, stride=3, name="SAME_LOWER"),
    Pooling(op="AveragePool", kernel=3, stride=3, ceil=1, pads=(0, 1)),
    Pooling(op="AveragePool", kernel=3, stride=2, ceil=1, pads=(1, 1), counted=1),
    Pooling(op="AveragePool", kernel=2, stride=2, ceil=1, counted=1),
]


def test_all_readers_agree_with_the_definition(tmp_path: Path) -> None:
    check_all_readers(CASES, image(1, 2, 6, 5), tmp_path)


def test_poolings_have_kernels(tmp_path: Path) -> None:
    onnx.save(
        model_of([case.node(2, f"y{i}") for i, case in enumerate(CASES[:8])], (1, 2, 6, 5)),
        tmp_path / "m.onnx",
    )
    families = {step.family for step in compile(tmp_path / "m.onnx").functions[0].steps}
    assert "fallback" not in families


@pytest.mark.parametrize("shape", [(2, 3, 7), (1, 2, 5, 6, 7)], ids=["1-D", "3-D"])
def test_other_than_two_axes(shape: tuple[int, ...], tmp_path: Path) -> None:
    cases = [case for case in CASES if not (case.counted and case.ceil)]
    check_all_readers(cases, image(*shape), tmp_path, readers="compile trace")


def test_dilated_means(tmp_path: Path) -> None:
    cases = [
        Pooling(op="AveragePool", kernel=2, stride=s, dilation=2, name=n, counted=c)
        for s, n, c in itertools.product((1, 2), NAMES, (0, 1))
    ]
    check_all_readers(cases, image(1, 2, 6, 5), tmp_path, readers="compile trace")


@pytest.mark.parametrize("opset", [7, 8, 10, 11])
def test_older_models(opset: int, tmp_path: Path) -> None:
    cases = [case for case in CASES if case.dilation == 1 and (opset >= 10 or not case.ceil)]
    check_all_readers(cases, image(1, 2, 7, 5), tmp_path, opset=opset, readers="compile compress")


@pytest.mark.slow
@pytest.mark.parametrize("extent", [5, 6, 7])
@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_grid(op: str, extent: int, tmp_path: Path) -> None:
    """Each extent gets a third of the grid, in no order."""
    grid = itertools.product(
        (1, 2, 3), (1, 2, 3, 4), (1, 2), NAMES, ((0, 0), (0, 1), (1, 1)), (0, 1), (0, 1)
    )
    cases = []
    for k, s, d, name, pads, ceil, counted in grid:
        twice = (
            (counted and op == "MaxPool")
            or (name != "NOTSET" and pads != (0, 0))
            or (d > 1 and k == 1)
        )
        if not twice and max(pads) < k and (d == 1 or op == "MaxPool"):
            cases.append(
                Pooling(
                    op=op,
                    kernel=k,
                    stride=s,
                    dilation=d,
                    name=name,
                    pads=pads,
                    ceil=ceil,
                    counted=counted,
                )
            )
    order = np.random.default_rng(0).permutation(len(cases))
    drawn = [cases[index] for index in order[extent % 3 :: 3]]
    check_all_readers(drawn, image(1, 1, extent, 5), tmp_path)


@pytest.mark.parametrize("p", [1, 2, 3])
def test_lp_pool(p: int, tmp_path: Path) -> None:
    """The sum of powers over the window: the mean that counts its padding, times the window's
    size."""
    x = image(1, 2, 7, 6)
    cases = [
        Pooling(op="LpPool", kernel=k, stride=2, name=name, attributes={"p": p})
        for k in (1, 2, 3)
        for name in NAMES[1:]
    ]
    onnx.save(
        model_of([case.node(2, f"y{i}") for i, case in enumerate(cases)], x.shape),
        tmp_path / "m.onnx",
    )
    for case, got in zip(cases, compile(tmp_path / "m.onnx")(x), strict=True):
        mean = Pooling(op="AveragePool", kernel=case.kernel, stride=2, name=case.name).expected(
            np.abs(x) ** p
        )
        sizes = [
            [len(taps) for taps, _ in along(n, k, 2, 1, case, 0, 0)]
            for n, k in ((7, case.kernel), (6, 2))
        ]
        np.testing.assert_allclose(got, (mean * np.outer(*sizes)) ** (1 / p), rtol=1e-4)


def test_padded_convolutions(tmp_path: Path) -> None:
    x = image(1, 2, 6, 7)
    weights, nodes = {}, []
    for i, (k, s, name) in enumerate(itertools.product((1, 3), (1, 2), NAMES[1:])):
        weights[f"w{i}"] = image(3, 2, k, 2)
        nodes.append(
            helper.make_node(
                "Conv", ["x", f"w{i}"], [f"y{i}"], strides=[s, 2], dilations=[2, 1], auto_pad=name
            )
        )
    model = model_of(nodes, x.shape, weights)
    onnx.save(model, tmp_path / "m.onnx")
    for node, expected, got in zip(
        nodes,
        ReferenceEvaluator(model).run(None, {"x": x}),
        compile(tmp_path / "m.onnx")(x),
        strict=True,
    ):
        np.testing.assert_allclose(got, expected, atol=1e-4, err_msg=str(node))


TRANSPOSED = [
    {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
    {"auto_pad": "SAME_LOWER", "strides": [2, 1]},
    {"auto_pad": "VALID", "strides": [2, 2]},
    {"output_shape": [10, 11], "strides": [2, 2]},
    {"output_shape": [10, 11], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
    {"output_shape": [12, 13], "strides": [2, 2], "output_padding": [1, 1]},
]


@pytest.mark.parametrize("attributes", TRANSPOSED, ids=str)
def test_transposed_convolutions(attributes: dict[str, Any], tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    x, weights = image(1, 2, 5, 6), {"w": image(2, 3, 3, 3)}
    model = model_of(
        [helper.make_node("ConvTranspose", ["x", "w"], ["y"], **attributes)], x.shape, weights
    )
    onnx.save(model, tmp_path / "m.onnx")
    (expected,) = runtime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    ).run(None, {"x": x})
    np.testing.assert_allclose(compile(tmp_path / "m.onnx")(x), expected, atol=1e-4)


BAD = {
    "a window of a thousand million": ("MaxPool", {"kernel_shape": [10**9, 2]}),
    "a dilation that overflows": ("MaxPool", {"kernel_shape": [2, 2], "dilations": [10**18, 1]}),
    "as many groups": ("Conv", {"group": 10**18}),
    "no groups": ("Conv", {"group": 0}),
    "a stride of nothing": ("AveragePool", {"kernel_shape": [2, 2], "strides": [0, 1]}),
    "padding of less than nothing": ("MaxPool", {"kernel_shape": [2, 2], "pads": [-1, 0, 0, 0]}),
    "padding as wide as the window": ("MaxPool", {"kernel_shape": [2, 2], "pads": [2, 0, 0, 0]}),
    "taps around the image": (
        "MaxPool",
        {"kernel_shape": [2, 2], "dilations": [12, 1], "pads": [6, 0, 6, 0]},
    ),
    "three axes for two": ("MaxPool", {"kernel_shape": [2, 2, 2]}),
    "a window larger than the image": ("AveragePool", {"kernel_shape": [20, 20]}),
}


@pytest.mark.parametrize("what", BAD)
def test_impossible_windows_are_refused_with_their_node(what: str, tmp_path: Path) -> None:
    op, attributes = BAD[what]
    names = ["x", "w"] if op == "Conv" else ["x"]
    model = model_of(
        [helper.make_node(op, names, ["y"], name="guilty", **attributes)],
        (1, 2, 6, 6),
        {"w": image(2, 2, 3, 3)},
    )
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(SubpcError, match="guilty") as caught:
        compile(tmp_path / "m.onnx")
    assert isinstance(caught.value, ModelFileError)
    assert len(str(caught.value).splitlines()) <= 2
