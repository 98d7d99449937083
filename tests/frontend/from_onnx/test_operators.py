"""ONNX operators that TVM's importer misreads: compiled, they give what ONNX's own definition
gives, or they are refused."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from subpc.compiler.compile_model import compile
from subpc.errors import ModelFileError, UnsupportedModelError
from tests.frontend.from_onnx.one_node import check, model_of

NONE = np.zeros(0, np.float32)


def resizings() -> Iterator[tuple[dict[str, np.ndarray], dict[str, Any]]]:
    up, down = np.array([1, 1, 2, 3], np.float32), np.array([1, 1, 0.6, 0.5], np.float32)
    odd = np.array([1, 2, 5, 13], np.int64)
    for mode in ("nearest", "linear", "cubic"):
        for scales in (up, down):
            yield {"roi": NONE, "scales": scales}, {"mode": mode}
        yield (
            {"roi": NONE, "scales": NONE, "sizes": odd},
            {"mode": mode, "coordinate_transformation_mode": "align_corners"},
        )
    yield {"roi": NONE, "scales": down}, {"mode": "linear", "antialias": 1}
    yield (
        {"roi": NONE, "scales": down},
        {
            "mode": "nearest",
            "coordinate_transformation_mode": "asymmetric",
            "nearest_mode": "floor",
        },
    )
    yield (
        {"roi": NONE, "scales": np.array([2, 1.5], np.float32)},
        {"mode": "linear", "axes": [2, 3]},
    )


@pytest.mark.parametrize(("weights", "attributes"), resizings(), ids=str)
def test_resize(weights: dict[str, np.ndarray], attributes: dict[str, Any], tmp_path: Path) -> None:
    check(tmp_path, "Resize", (1, 2, 7, 8), weights, **attributes)


@pytest.mark.parametrize("padding", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("stride", [1, 2])
def test_padding_by_name(padding: str, stride: int, tmp_path: Path) -> None:
    weight = np.random.default_rng(1).standard_normal((4, 2, 3, 2)).astype(np.float32)
    check(tmp_path, "Conv", (1, 2, 7, 8), {"w": weight}, auto_pad=padding, strides=[stride, stride])


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
def test_pad(mode: str, tmp_path: Path) -> None:
    check(
        tmp_path,
        "Pad",
        (1, 2, 5, 6),
        {"pads": np.array([0, 0, 1, 2, 0, 0, 2, 1], np.int64)},
        mode=mode,
    )


def test_dilated_average(tmp_path: Path) -> None:
    model = model_of(
        [helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[2, 2], dilations=[2, 2])],
        (1, 2, 7, 8),
        {},
        ["y"],
    )
    model.opset_import[0].version = 19
    onnx.save(model, tmp_path / "m.onnx")
    x = np.random.default_rng(0).standard_normal((1, 2, 7, 8)).astype(np.float32)
    expected = (x[:, :, :-2, :-2] + x[:, :, 2:, :-2] + x[:, :, :-2, 2:] + x[:, :, 2:, 2:]) / 4
    np.testing.assert_allclose(compile(tmp_path / "m.onnx")(x), expected, atol=1e-5)


def test_weights_beside_activations(tmp_path: Path) -> None:
    check(tmp_path, "Concat", (1, 2, 5, 6), {"w": np.ones((1, 3, 5, 6), np.float32)}, axis=1)


def test_int64_constants_stay_int64(tmp_path: Path) -> None:
    check(tmp_path, "Gather", (4, 5), {"i": np.array([-1, 0, 3], np.int64)}, axis=1)


REFUSED = {
    "BatchNormalization in training mode": (
        helper.make_node(
            "BatchNormalization", ["x", "c", "c", "c", "c"], ["y"], name="n", training_mode=1
        ),
        (1, 2, 4, 4),
    ),
    "Dropout in training mode": (
        helper.make_node("Dropout", ["x", "ratio", "true"], ["y"], name="n"),
        (1, 2, 4, 4),
    ),
    "the mask of Dropout": (helper.make_node("Dropout", ["x"], ["z", "y"], name="n"), (1, 2, 4, 4)),
    "the further results of MaxPool": (
        helper.make_node("MaxPool", ["x"], ["z", "y"], name="n", kernel_shape=[2, 2]),
        (1, 2, 4, 4),
    ),
    "TopK": (helper.make_node("TopK", ["x", "k"], ["y", "z"], name="n"), (1, 8)),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_would_be_wrong_is_refused_with_its_node(words: str, tmp_path: Path) -> None:
    node, shape = REFUSED[words]
    weights = {
        "w": np.ones((2, 2, 3, 3), np.float32),
        "c": np.ones(2, np.float32),
        "k": np.array([2]),
        "true": np.array(True),
    }
    onnx.save(
        model_of([node], shape, weights | {"ratio": np.array(0.5, np.float32)}, ["y"]),
        tmp_path / "m.onnx",
    )
    with pytest.raises(UnsupportedModelError, match=words) as caught:
        compile(tmp_path / "m.onnx")
    assert "(in n)" in str(caught.value)


def test_shapes_that_depend_on_values_are_refused(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["n"], to=TensorProto.INT64),
        helper.make_node("ConstantOfShape", ["n"], ["y"], name="fill"),
    ]
    onnx.save(model_of(nodes, (3,), {}, ["y"]), tmp_path / "m.onnx")
    with pytest.raises(
        UnsupportedModelError,
        match=r"what node fill \(ConstantOfShape\) makes depends on the values",
    ):
        compile(tmp_path / "m.onnx")


USES = {
    r"Node n \(QuantizeLinear\) is not supported with inputs float\[4,4\], float\[4,2\]"
    " and axis=1, block_size=2": (
        helper.make_node("QuantizeLinear", ["x", "scale"], ["y"], name="n", axis=1, block_size=2),
        {"scale": np.ones((4, 2), np.float32)},
    ),
    r"Node n \(OneHot\) cannot be compiled: its depth depends on the input": (
        helper.make_node("OneHot", ["i", "x", "v"], ["y"], name="n"),
        {"i": np.array([1]), "v": np.float32([0, 1])},
    ),
    r"Constant 'few' is int4; accepted: float32": (
        helper.make_node("DequantizeLinear", ["few", "x"], ["y"], name="n"),
        {"few": np.ones(4, helper.tensor_dtype_to_np_dtype(TensorProto.INT4))},
    ),
}


@pytest.mark.parametrize("words", USES)
def test_uses_that_no_converter_takes_are_refused_in_words(words: str, tmp_path: Path) -> None:
    node, weights = USES[words]
    shape = {"QuantizeLinear": (4, 4), "OneHot": (), "DequantizeLinear": ()}[node.op_type]
    model = model_of([node], shape, weights, ["y"])
    model.opset_import[0].version, model.ir_version = 21, 10
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(UnsupportedModelError, match=words) as caught:
        compile(tmp_path / "m.onnx")
    assert len(str(caught.value).splitlines()) <= 2
    assert "TVM" not in str(caught.value)


def test_types_that_are_not_passed_on_are_refused(tmp_path: Path) -> None:
    node = helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["y"])
    model = model_of(
        [node], (1, 4), {"scale": np.array(0.1, np.float32), "zero": np.array(0, np.int16)}, ["y"]
    )
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT16
    model.opset_import[0].version = 21
    model.ir_version = 10
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(
        UnsupportedModelError, match="QuantizeLinear of int16, instead of uint8 or int8"
    ):
        compile(tmp_path / "m.onnx")


@pytest.mark.parametrize("mode", ["reflect", "edge"])
def test_padding_beyond_the_size(mode: str, tmp_path: Path) -> None:
    check(tmp_path, "Pad", (4, 5), {"pads": np.array([0, 6, 3, 17], np.int64)}, mode=mode)


CUTS = {
    "cuts [4, 5] down to [4, -3]": ([0, -4, 0, -4], "constant"),
    "cuts 7 and 0 off an axis of 5": ([0, -7, 0, 4], "constant"),
}
CUTS["cuts an axis at one end and pads it"] = ([0, -2, 0, 3], "reflect")


@pytest.mark.parametrize("words", CUTS)
def test_padding_that_cuts_too_much_is_refused(words: str, tmp_path: Path) -> None:
    pads, mode = CUTS[words]
    onnx.save(
        model_of(
            [helper.make_node("Pad", ["x", "p"], ["y"], mode=mode)],
            (4, 5),
            {"p": np.array(pads)},
            ["y"],
        ),
        tmp_path / "m.onnx",
    )
    with pytest.raises((ModelFileError, UnsupportedModelError)) as caught:
        compile(tmp_path / "m.onnx")
    assert words in str(caught.value)
