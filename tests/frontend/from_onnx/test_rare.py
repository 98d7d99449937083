"""Rare ONNX operators, and rare forms of usual ones, that a converter once got wrong or did not
take: what ONNX's definition gives."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from subpc.compiler.compile_model import compile

F32 = np.float32
SHAPE = (1, 4, 6, 6)
CONSTANTS: dict[str, Any] = {
    "whole": np.array([2, -3, 0, 1, 3, -1]),
    "divisor": F32([2, -3, np.inf, 0.7, -np.inf, 5]),
    "scale": np.linspace(0.5, 2, 144).astype(F32).reshape(SHAPE[1:]),
    "answer": F32([42, 43]),
}
NODES: dict[str, dict[str, Any]] = {
    "Celu": {"alpha": 0.7},
    "Swish": {"alpha": 1.5},
    "LpNormalization": {"axis": 1, "p": 2},
    "MeanVarianceNormalization": {},
    "SpaceToDepth": {"blocksize": 2},
    "RMSNormalization scale": {"axis": 1},
    "Pow whole": {},
    "Mod divisor": {"fmod": 1},
    "ReduceLogSumExp": {"keepdims": 0},
    "Identity answer": {},
}


def check(model: onnx.ModelProto, folder: Path) -> None:
    x = np.random.default_rng(0).standard_normal(SHAPE).astype(F32)
    expected = ReferenceEvaluator(model).run(None, {"x": x})
    onnx.save(model, folder / "m.onnx")
    got = compile(folder / "m.onnx")(x)
    for result, right, name in zip(
        got if isinstance(got, tuple) else [got], expected, model.graph.output, strict=True
    ):
        np.testing.assert_allclose(result, right, rtol=1e-4, atol=1e-5, err_msg=name.name)


def model_of(nodes: list[onnx.NodeProto], opset: int) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "rare",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None) for node in nodes],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in CONSTANTS.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def test_rare_operators_are_what_onnx_says(tmp_path: Path) -> None:
    """All in one model, which is quick; a result that is wrong is named by its operator."""
    nodes = []
    for text, attributes in NODES.items():
        op, *constants = text.split()
        nodes.append(
            helper.make_node(
                op, constants if op == "Identity" else ["x", *constants], [f"y_{op}"], **attributes
            )
        )
    check(model_of(nodes, 24), tmp_path)


def test_space_to_depth_with_channels_first(tmp_path: Path) -> None:
    x = np.arange(144, dtype=F32).reshape(SHAPE)
    model = model_of([helper.make_node("SpaceToDepth", ["x"], ["y"], blocksize=2, mode="CRD")], 28)
    onnx.save(model, tmp_path / "m.onnx")
    expected = x.reshape(1, 4, 3, 2, 3, 2).transpose(0, 1, 3, 5, 2, 4).reshape(1, 16, 3, 3)
    np.testing.assert_array_equal(compile(tmp_path / "m.onnx")(x), expected)


def test_old_prelu_has_a_slope_for_each_channel(tmp_path: Path) -> None:
    model = model_of([helper.make_node("PRelu", ["x", "slope"], ["y"])], 6)
    slope = F32([0.1, 0.2, 0.3, 0.4])
    model.graph.initializer.append(numpy_helper.from_array(slope, "slope"))
    onnx.save(model, tmp_path / "m.onnx")
    x = np.random.default_rng(0).standard_normal(SHAPE).astype(F32)
    np.testing.assert_allclose(
        compile(tmp_path / "m.onnx")(x), np.where(x > 0, x, x * slope[:, None, None]), rtol=1e-6
    )


@pytest.mark.parametrize(
    ("op", "of_nothing"),
    [("ReduceSum", 0), ("ReduceProd", 1), ("ReduceMax", -np.inf), ("ReduceMin", np.inf)],
)
def test_reductions_of_nothing(op: str, of_nothing: float, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Slice", ["x", "far", "far", "last"], ["empty"]),
        helper.make_node(op, ["empty", "last"], ["y"], keepdims=0),
    ]
    model = model_of(nodes, 20)
    del model.graph.output[0]
    model.graph.initializer.extend(
        numpy_helper.from_array(np.array([n]), name) for name, n in (("far", 6), ("last", 3))
    )
    onnx.save(model, tmp_path / "m.onnx")
    np.testing.assert_array_equal(
        compile(tmp_path / "m.onnx")(np.ones(SHAPE, F32)), np.full(SHAPE[:3], of_nothing, F32)
    )
