"""Indices and boxes from outside of a tensor: refused where they are known, harmless where they are
not."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from subpc.compiler.compile_model import compile
from subpc.errors import ModelFileError
from tests.frontend.from_onnx.one_node import model_of

OUTSIDE = {
    "Gather": np.array([0, 7]),
    "GatherElements": np.array([[0, -6]]),
    "GatherND": np.array([[1, 2], [0, 7]]),
}


@pytest.mark.parametrize("op", OUTSIDE)
def test_constant_indices_outside_are_refused(op: str, tmp_path: Path) -> None:
    node = helper.make_node(
        op, ["x", "i"], ["y"], name="n", **({} if op == "GatherND" else {"axis": 1})
    )
    onnx.save(model_of([node], (4, 5), {"i": OUTSIDE[op]}, ["y"]), tmp_path / "m.onnx")
    with pytest.raises(ModelFileError) as caught:
        compile(tmp_path / "m.onnx")
    assert (
        f"n ({op}): index {'-6' if op == 'GatherElements' else 7} along axis 1, which has 5"
        " elements" in str(caught.value)
    )


def indexed(op: str, shape: list[int], **attributes: Any) -> onnx.ModelProto:
    """A node whose indices, of `shape`, are an input of the network."""
    model = model_of([helper.make_node(op, ["x", "i"], ["y"], **attributes)], (4, 5), {}, ["y"])
    model.graph.input.append(helper.make_tensor_value_info("i", TensorProto.INT64, shape))
    return model


@pytest.mark.parametrize(
    ("op", "shape"), [("Gather", [4, 5]), ("GatherElements", [4, 5]), ("GatherND", [10, 2])]
)
def test_indices_from_outside_read_what_there_is(op: str, shape: list[int], tmp_path: Path) -> None:
    onnx.save(indexed(op, shape, **({} if op == "GatherND" else {"axis": 1})), tmp_path / "m.onnx")
    x = np.arange(20, dtype=np.float32).reshape(4, 5)
    far = np.random.default_rng(0).integers(-(2**63), 2**63, shape)
    assert np.isin(compile(tmp_path / "m.onnx")(x, far), x).all()


def test_regions_from_outside_read_what_there_is(tmp_path: Path) -> None:
    """Images that are not there, and boxes of NaN, do not end the process."""
    model = model_of(
        [helper.make_node("RoiAlign", ["x", "r", "i"], ["y"], output_height=2, output_width=2)],
        (1, 2, 8, 8),
        {},
        ["y"],
    )
    model.graph.input.append(helper.make_tensor_value_info("r", TensorProto.FLOAT, [3, 4]))
    model.graph.input.append(helper.make_tensor_value_info("i", TensorProto.INT64, [3]))
    onnx.save(model, tmp_path / "m.onnx")
    compiled, x = compile(tmp_path / "m.onnx"), np.ones((1, 2, 8, 8), np.float32)
    boxes = np.tile(np.float32([0, 0, 4, 4]), (3, 1))
    assert (compiled(x, boxes, np.array([10**6, -(10**6), 2**40])) == 1).all()
    for value in (np.nan, np.inf, -1e30):
        assert compiled(x, np.full_like(boxes, value), np.zeros(3, np.int64)).shape == (3, 2, 2, 2)
