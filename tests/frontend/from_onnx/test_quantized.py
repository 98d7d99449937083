"""Operators on codes, of ONNX and of ONNX Runtime, equal ONNX Runtime; weights keep their codes."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from tvm import relax

from subpc.errors import SubpcError, UnsupportedModelError
from subpc.frontend.import_model import import_model
from subpc.passes import ops
from subpc.passes.dataflow import constant_of
from subpc.passes.pipeline import rewrite_model
from subpc.schedules.isa import AVX512_VNNI, GENERIC
from tests.frontend.quantized_files import runtime
from tests.passes.integer_meanings import evaluate_exactly

RNG = np.random.default_rng(0)
SHAPE = (1, 8, 6, 6)
Nodes = list[onnx.NodeProto]
Constants = Mapping[str, Any]


def saved(folder: Path, nodes: Nodes, constants: Constants, opset: int = 13) -> Path:
    """A network that quantizes x to a, runs the nodes from a to y, and dequantizes y."""
    stored = {name: np.asarray(value) for name, value in constants.items()}
    whole = [
        helper.make_node("QuantizeLinear", ["x", "a_scale", "a_zero"], ["a"]),
        *nodes,
        helper.make_node("DequantizeLinear", ["y", "y_scale", "y_zero"], ["out"]),
    ]
    graph = helper.make_graph(
        whole,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in stored.items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    path = folder / "net.onnx"
    onnx.save(model, path)
    return path


def quantization(name: str, scale: float, zero: int, codes: str) -> dict[str, Any]:
    return {f"{name}_scale": np.float32(scale), f"{name}_zero": np.dtype(codes).type(zero)}


def constants(codes: str) -> dict[str, Any]:
    """Quantizations of a, b and y, and another tensor b of a's shape."""
    shift = 0 if codes == "uint8" else 128
    b = RNG.integers(0 - shift, 256 - shift, SHAPE).astype(codes)
    return {
        **quantization("a", 0.021317, 120 - shift, codes),
        **quantization("b", 0.015711, 100 - shift, codes),
        **quantization("y", 0.031373, 110 - shift, codes),
        "b": b,
    }


A, B, Y = ([f"{n}_scale", f"{n}_zero"] for n in "aby")
OF_ONE = {
    "QLinearSigmoid": {},
    "QLinearLeakyRelu": {"alpha": 0.2},
    "QLinearGlobalAveragePool": {"channels_last": 0},
    "QLinearAveragePool": {"kernel_shape": [2, 2], "strides": [2, 2]},
    "QLinearSoftmax": {"axis": 1, "opset": 13},
}
MICROSOFT = {"domain": "com.microsoft"}


def of_one(op: str) -> onnx.NodeProto:
    return helper.make_node(op, ["a", *A, *Y], ["y"], **OF_ONE[op], **MICROSOFT)


def of_two(op: str) -> onnx.NodeProto:
    return helper.make_node(op, ["a", *A, "b", *B, *Y], ["y"], **MICROSOFT)


CASES = {
    **{op: of_one(op) for op in OF_ONE},
    **{op: of_two(op) for op in ("QLinearAdd", "QLinearMul")},
    "QLinearConcat": helper.make_node(
        "QLinearConcat", [*Y, "a", *A, "b", *B], ["y"], axis=1, **MICROSOFT
    ),
}


def agrees(path: Path, step: float) -> None:
    """The network is what ONNX Runtime computes, but for sums that lie on the edge between two
    codes; as integers and as floats."""
    (imported,) = import_model(path)
    x = RNG.standard_normal(SHAPE).astype(np.float32) * 2
    expected = runtime(path, x)
    assert len(np.unique(expected)) > 3
    for isa in (AVX512_VNNI, GENERIC):
        module = rewrite_model(imported, isa=isa, sparse="auto").module
        (found,) = evaluate_exactly(module, torch.from_numpy(x))
        steps = np.abs(found.numpy() - expected) / step
        assert steps.max() < 1.01
        assert (steps < 0.01).mean() > 0.98


@pytest.mark.parametrize("codes", ["uint8", "int8"])
@pytest.mark.parametrize("case", CASES)
def test_operators_on_codes_equal_onnx_runtime(case: str, codes: str, tmp_path: Path) -> None:
    node = CASES[case]
    given = constants(codes)
    if case == "QLinearSoftmax":
        given |= quantization("y", 1 / 256, 0 if codes == "uint8" else -128, codes)
    agrees(saved(tmp_path, [node], given), given["y_scale"])


CONV = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
W = RNG.integers(-127, 128, (6, 8, 3, 3)).astype(np.int8)


def weighted(
    op: str, weight: np.ndarray, scales: Any, zeros: Any, *, bias: bool, **how: Any
) -> tuple[onnx.NodeProto, dict[str, Any]]:
    """An operator with weights and the constants that it reads."""
    given = constants("uint8") | {
        "w": weight,
        "w_scale": np.asarray(scales, np.float32),
        "w_zero": np.asarray(zeros, weight.dtype),
        "bias": RNG.integers(-9000, 9000, 6).astype(np.int32),
        **quantization("y", 0.40173, 110, "uint8"),
    }
    weights, sums = ["w", "w_scale", "w_zero"], ["bias"] if bias else []
    orders = {"QGemm": [*weights, *(sums or [""]), *Y], "QLinearConv": [*weights, *Y, *sums]}
    inputs = ["a", *A, *orders.get(op, [*weights, *Y])]
    return helper.make_node(op, inputs, ["y"], name="first/Conv_quant", **how), given


EACH = np.linspace(0.004, 0.01, 6)
CONVOLUTIONS = {
    "one scale": (W, 0.006, 0),
    "a scale a filter": (W, EACH, np.zeros(6)),
    "bytes without a sign": ((W.astype(int) + 128).astype(np.uint8), 0.006, 128),
    "zero points that are not in the middle": ((W // 2 + 60).astype(np.int8), EACH, np.arange(6)),
}


@pytest.mark.parametrize("bias", [False, True], ids=["", "bias"])
@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolutions_of_codes(case: str, bias: bool, tmp_path: Path) -> None:
    node, given = weighted("QLinearConv", *CONVOLUTIONS[case], bias=bias, **CONV)
    agrees(saved(tmp_path, [node], given, opset=10 if case == "one scale" else 13), 0.40173)


ROWS = RNG.integers(-127, 128, (6, 288)).astype(np.int8)


def flat(*nodes: onnx.NodeProto) -> Nodes:
    """Nodes that read a flattened, under its own name."""
    flatten = helper.make_node("Flatten", ["a"], ["rows"])
    for node in nodes:
        node.input[0] = "rows"
    return [flatten, *nodes]


@pytest.mark.parametrize("each", [False, True], ids=["one scale", "a scale a column"])
def test_products_of_codes(each: bool, tmp_path: Path) -> None:
    node, given = weighted(
        "QLinearMatMul",
        np.ascontiguousarray(ROWS.T),
        EACH if each else 0.006,
        np.zeros(6) if each else 0,
        bias=False,
    )
    agrees(saved(tmp_path, flat(node), given), 0.40173)


@pytest.mark.parametrize("turned", [0, 1], ids=["", "turned"])
def test_fully_connected_layers_of_codes(turned: int, tmp_path: Path) -> None:
    weight = ROWS if turned else np.ascontiguousarray(ROWS.T)
    node, given = weighted(
        "QGemm", weight, EACH, np.zeros(6), bias=True, transB=turned, **MICROSOFT
    )
    agrees(saved(tmp_path, flat(node), given), 0.40173)


def layers_of(path: Path) -> dict[str, relax.Call]:
    """The layers of the network as integers."""
    (imported,) = import_model(path)
    graph = rewrite_model(imported, isa=AVX512_VNNI, sparse="auto").graph
    return {ops.attributes(call)["name"]: call for _, call in graph.calls(ops.CONV2D, ops.LINEAR)}


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_codes_of_weights_are_kept_bit_for_bit(case: str, tmp_path: Path) -> None:
    weight, scales, zeros = CONVOLUTIONS[case]
    node, given = weighted("QLinearConv", weight, scales, zeros, bias=True, **CONV)
    (layer,) = layers_of(saved(tmp_path, [node], given)).values()
    along = np.broadcast_to(zeros, 6).reshape(-1, 1, 1, 1)
    np.testing.assert_array_equal(constant_of(layer.args[1]), weight.astype(int) - along)
    np.testing.assert_allclose(
        ops.attributes(layer)["weight_scales"], np.broadcast_to(scales, 6), rtol=1e-6
    )


def test_layers_have_the_names_that_they_had_before_they_were_quantized(tmp_path: Path) -> None:
    node, given = weighted("QLinearConv", *CONVOLUTIONS["one scale"], bias=True, **CONV)
    given["features.weight_quantized"] = given.pop("w")
    node.input[3] = "features.weight_quantized"
    assert list(layers_of(saved(tmp_path, [node], given))) == ["features"]


def test_convolutions_whose_weights_need_nine_bits_are_two(tmp_path: Path) -> None:
    """One with the codes that fit, and one with what the others have more."""
    stored = (W.astype(int) + 128).astype(np.uint8)
    node, given = weighted("QLinearConv", stored, 0.006, 90, bias=True, **CONV)
    path = saved(tmp_path, [node], given)
    parts = [constant_of(call.args[1]).astype(int) for call in layers_of(path).values()]
    np.testing.assert_array_equal(sum(parts), stored.astype(int) - 90)
    assert 0 < np.count_nonzero(parts[0]) < parts[0].size / 4
    agrees(path, 0.40173)


def test_rows_whose_weights_need_nine_bits_have_offsets(tmp_path: Path) -> None:
    """Codes of eight bits, and what every weight of a row has more."""
    stored = (ROWS.T.astype(int) + 128).astype(np.uint8)
    node, given = weighted("QLinearMatMul", np.ascontiguousarray(stored), 0.006, 90, bias=False)
    path = saved(tmp_path, flat(node), given)
    product, _, spread = (layer for _, layer in sorted(layers_of(path).items()))
    offsets = np.rint(constant_of(spread.args[1]) / np.float32(0.006)).astype(int)
    np.testing.assert_array_equal(constant_of(product.args[1]) + offsets, stored.T.astype(int) - 90)
    agrees(path, 0.40173)


MOVES = {
    "maxima": helper.make_node("MaxPool", ["a"], ["moved"], kernel_shape=[2, 2], strides=[2, 2]),
    "axes": helper.make_node("Transpose", ["a"], ["moved"], perm=[0, 1, 3, 2]),
    "both": helper.make_node("Concat", ["a", "a"], ["moved"], axis=1),
}


@pytest.mark.parametrize("case", MOVES)
def test_what_moves_codes_moves_what_they_stand_for(case: str, tmp_path: Path) -> None:
    given = constants("uint8")
    same = {f"y_{what}": given[f"a_{what}"] for what in ("scale", "zero")}
    node = onnx.NodeProto()
    node.CopyFrom(MOVES[case])
    node.output[0] = "y"
    path = saved(tmp_path, [node], given | same)
    agrees(path, float(given["a_scale"]))


@pytest.mark.parametrize("codes", [np.int16, np.uint16])
def test_codes_of_two_bytes_are_refused(codes: type, tmp_path: Path) -> None:
    zero = {"a_zero": codes(0), "y_zero": codes(0)}
    node = helper.make_node("Relu", ["a"], ["y"])
    name = np.dtype(codes).name
    path = saved(tmp_path, [node], constants("uint8") | zero, opset=21)
    with pytest.raises(UnsupportedModelError, match=f"of {name}, instead of uint8 or int8, "):
        import_model(path)


def test_images_with_channels_last_are_refused(tmp_path: Path) -> None:
    node = of_one("QLinearGlobalAveragePool")
    node.attribute[0].i = 1
    with pytest.raises(UnsupportedModelError, match="with their channels last"):
        import_model(saved(tmp_path, [node], constants("uint8")))


def damaged(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    """The node with fewer and fewer inputs, and without attributes or results."""
    lacking = [("input", left) for left in range(len(node.input))]
    for part, left in (*lacking, ("attribute", 0), ("output", 0)):
        worse = onnx.NodeProto()
        worse.CopyFrom(node)
        del getattr(worse, part)[left:]
        yield worse


@pytest.mark.parametrize("case", [*CASES, *(f"conv {name}" for name in CONVOLUTIONS)])
def test_damaged_operators_are_refused_in_two_lines(case: str, tmp_path: Path) -> None:
    """Or taken, where what is missing has a default."""
    node, given = CASES.get(case), constants("uint8")
    if node is None:
        node, given = weighted("QLinearConv", *CONVOLUTIONS[case[5:]], bias=True, **CONV)
    messages = [refusal(saved(tmp_path, [worse], given)) for worse in damaged(node)]
    assert any(messages)
    assert all(len(message.splitlines()) <= 2 for message in messages)


def refusal(path: Path) -> str:
    try:
        import_model(path)
    except SubpcError as error:
        return str(error)
    return ""
