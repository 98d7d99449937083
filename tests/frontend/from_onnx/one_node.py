"""Models of ONNX of a node or two, and what they have to give."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from subpc.compiler.compile_model import compile

TOLERANCE = 1e-4  # of the output's range


def model_of(
    nodes: list[onnx.NodeProto],
    shape: tuple[int, ...],
    weights: dict[str, np.ndarray],
    outputs: list[str],
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def check(
    folder: Path,
    op: str,
    shape: tuple[int, ...],
    weights: dict[str, np.ndarray] | None = None,
    **attributes: Any,
) -> None:
    weights = weights or {}
    node = helper.make_node(
        op,
        ["x", *(name if value.size else "" for name, value in weights.items())],
        ["y"],
        **attributes,
    )
    model = model_of(
        [node], shape, {name: value for name, value in weights.items() if value.size}, ["y"]
    )
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    (expected,) = ReferenceEvaluator(model).run(None, {"x": x})
    path = folder / "m.onnx"
    onnx.save(model, path)
    got = compile(path)(x)
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= TOLERANCE * np.abs(expected).max()
