"""Constants with a scale for each block of values: computed where blocks divide the axis, refused
where they cannot."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from subpc.errors import ModelFileError
from subpc.frontend.import_model import import_model


def blocks(size: int, scales: tuple[int, ...], path: Path) -> Path:
    """A sum with a constant (4, 6) whose values have scales in blocks along the second axis."""
    constants = {"w": np.ones((4, 6), np.int8), "s": np.full(scales, 0.5, np.float32)}
    graph = helper.make_graph(
        [
            helper.make_node("DequantizeLinear", ["w", "s"], ["v"], axis=1, block_size=size),
            helper.make_node("Add", ["x", "v"], ["y"]),
        ],
        "net",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (4, 6))],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, (4, 6))],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]), path)
    return path


def test_blocks_that_divide_the_axis_are_computed(tmp_path: Path) -> None:
    (network,) = import_model(blocks(2, (4, 3), tmp_path / "net.onnx"))
    assert network is not None


@pytest.mark.parametrize(
    ("size", "scales"),
    [(1 << 62, (4, 3)), (1 << 62, (4,)), (7, (4, 1)), (-2, (4, 3)), (2, (4, 4)), (3, (4, 3))],
    ids=str,
)
def test_blocks_that_do_not_are_refused(size: int, scales: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="scales"):
        import_model(blocks(size, scales, tmp_path / "net.onnx"))
