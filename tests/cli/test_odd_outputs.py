"""Outputs with names that something else has taken, and outputs that are constants."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from subpc.cli.main import run
from subpc.runtime.arrays import save_arrays

NAMES = ("allow_pickle", "file", "a/b", "/etc/../x", "line\nbreak", "arr_0", "self")


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A library whose outputs have such names, one twice, beside constants of several types."""
    constants = {
        "anchors": np.arange(12, dtype=np.float32).reshape(3, 4),
        "classes": np.arange(5),
        "mask": np.array([True, False, True]),
    }
    types = {"anchors": TensorProto.FLOAT, "classes": TensorProto.INT64, "mask": TensorProto.BOOL}
    nodes = [helper.make_node("Mul", ["x", f"c{i}"], [name]) for i, name in enumerate(NAMES)]
    outputs = [(name, TensorProto.FLOAT) for name in (*NAMES, "file")] + list(types.items())
    graph = helper.make_graph(
        nodes,
        "odd",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 4, 4])],
        [helper.make_tensor_value_info(name, element, None) for name, element in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()]
        + [numpy_helper.from_array(np.float32(i + 1), f"c{i}") for i in range(len(NAMES))],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        tmp_path / "odd.onnx",
    )
    assert run(["compile", str(tmp_path / "odd.onnx"), "-o", str(tmp_path / "odd.so")]) == 0
    return tmp_path / "odd.so"


def test_run_writes_them_all(odd: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((1, 2, 4, 4), np.float32)
    np.save(tmp_path / "x.npy", x)
    assert (
        run(["run", str(odd), "--input", str(tmp_path / "x.npy"), "-o", str(tmp_path / "y.npz")])
        == 0
    )
    with np.load(tmp_path / "y.npz") as archive:
        for factor, name in enumerate(NAMES, start=1):
            np.testing.assert_allclose(archive[name], factor * x, rtol=1e-6)
        np.testing.assert_allclose(archive["file#2"], 2 * x, rtol=1e-6)
        np.testing.assert_array_equal(archive["anchors"], np.arange(12).reshape(3, 4))
        np.testing.assert_array_equal(archive["classes"], np.arange(5))
        np.testing.assert_array_equal(archive["mask"], [True, False, True])


def test_no_object_is_pickled(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="pickle"):
        save_arrays(tmp_path / "a.npz", {"x": np.array([{}])})
