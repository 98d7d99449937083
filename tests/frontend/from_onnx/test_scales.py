"""Scales of codes: positive and finite, or the file is refused."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from subpc.compiler.compile_model import rewritten
from subpc.errors import UnsupportedModelError
from subpc.frontend.import_model import import_model
from subpc.machine.target import isa_of_flags


def rounding(scale: float, path: Path) -> Path:
    """A network that rounds its input to codes and back."""
    values = {"scale": np.float32(scale), "zero": np.uint8(3)}
    sizes = {"x": [1, 2, 4, 4], "y": [1, 2, 4, 4]}
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in sizes.items())
    nodes = [
        helper.make_node("QuantizeLinear", ["x", *values], ["codes"]),
        helper.make_node("DequantizeLinear", ["codes", *values], ["y"]),
    ]
    stored = [numpy_helper.from_array(np.asarray(v), name) for name, v in values.items()]
    graph = helper.make_graph(nodes, "net", [x], [y], stored)
    opsets = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def test_a_scale_of_codes_is_taken(tmp_path: Path) -> None:
    assert len(import_model(rounding(0.5, tmp_path / "net.onnx"))) == 1


@pytest.mark.parametrize("scale", [0.0, -1.0, np.inf, np.nan, 1e-39])
def test_a_scale_that_no_code_can_have_is_refused(scale: float, tmp_path: Path) -> None:
    words = f"QuantizeLinear with the scale {scale:g}, instead of a positive finite one"
    with pytest.raises(UnsupportedModelError, match=words):
        import_model(rounding(scale, tmp_path / "net.onnx"))


@pytest.mark.filterwarnings("error")
def test_codes_whose_values_overflow_are_folded_in_silence(tmp_path: Path) -> None:
    """Weights that are infinite are the file's; a warning of NumPy's tells the user nothing."""
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 2, 4, 4]) for n in ("x", "y"))
    nodes = [
        helper.make_node("DequantizeLinear", ["codes", "scale"], ["w"]),
        helper.make_node("Conv", ["x", "w"], ["y"]),
    ]
    values = {"codes": np.full((2, 2, 1, 1), 100, "int8"), "scale": np.float32(3e38)}
    stored = [numpy_helper.from_array(np.asarray(v), name) for name, v in values.items()]
    graph = helper.make_graph(nodes, "net", [x], [y], stored)
    opsets = [helper.make_opsetid("", 13)]
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    rewritten(path, None, isa=isa_of_flags(frozenset()), sparse="auto")
