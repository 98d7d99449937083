"""Small files that ask for much: refused in words before the memory or the time is taken."""

import resource
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from subpc.errors import ModelFileError
from subpc.frontend.import_model import import_model

MEMORY = 512 << 20  # more than what imports take anyway
SECONDS = 10


def model_of(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], opset: int = 17) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def doubled(op: str, start: str, times: int) -> Iterator[onnx.NodeProto]:
    for i in range(times):
        source, out = (f"d{i - 1}" if i else start), f"d{i}"
        yield (
            helper.make_node(op, [source, source], [out], name=out, axis=0)
            if op == "Concat"
            else helper.make_node(op, [source, "twice"], [out], name=out)
        )


def ending(value: str) -> list[onnx.NodeProto]:
    return [helper.make_node("ReduceSum", [value], ["s"], keepdims=0), helper.make_node("Add", ["x", "s"], ["y"])]


I64 = np.int64
FILES: dict[str, onnx.ModelProto] = {
    "Range": model_of([helper.make_node("Range", ["a", "b", "c"], ["r"], name="r"), *ending("r")], {"a": 0.0, "b": 3e10, "c": 1.0}),
    "Range in tiny steps": model_of([helper.make_node("Range", ["a", "b", "c"], ["r"]), *ending("r")], {"a": 0.0, "b": 1.0, "c": 1e-300}),
    "Range of no step": model_of([helper.make_node("Range", ["a", "b", "c"], ["r"]), *ending("r")], {"a": 0.0, "b": 1.0, "c": 0.0}),
    "doublings by Concat": model_of([*doubled("Concat", "t", 36), *ending("d35")], {"t": np.ones(16, np.float32)}),
    "doublings by Tile": model_of([*doubled("Tile", "t", 36), *ending("d35")], {"t": np.ones(16, np.float32), "twice": np.array([2])}),
    "doublings of a shape": model_of(
        [helper.make_node("Shape", ["x"], ["t"]), *doubled("Concat", "t", 36), helper.make_node("Cast", ["d35"], ["f"], to=1), *ending("f")], {}
    ),
    "many that are each small": model_of(
        [helper.make_node("ConstantOfShape", ["n"], [f"c{i}"], value=numpy_helper.from_array(np.float32([i]))) for i in range(500)]
        + [helper.make_node("Sum", ["x", *(f"c{i}" for i in range(500))], ["y"])],
        {"n": np.array([1, 2, 8, 1 << 20])},
    ),
    "Expand": model_of([helper.make_node("Expand", ["t", "n"], ["e"]), *ending("e")], {"t": np.float32([1]), "n": np.array([1 << 20, 1 << 20])}),
    "a product that overflows": model_of([helper.make_node("Tile", ["t", "n"], ["e"]), *ending("e")], {"t": np.ones(4, np.float32), "n": np.array([1 << 62])}),
    "ConstantOfShape": model_of([helper.make_node("ConstantOfShape", ["n"], ["e"]), *ending("e")], {"n": np.array([1 << 40, 3])}),
    "Pad": model_of([helper.make_node("Pad", ["t", "n"], ["e"]), *ending("e")], {"t": np.ones(4, np.float32), "n": np.array([1 << 30, 1 << 30])}),
    "OneHot": model_of(
        [helper.make_node("OneHot", ["i", "n", "v"], ["e"]), *ending("e")],
        {"i": np.arange(1000), "n": np.array(1 << 30), "v": np.float32([0, 1])},
    ),
    "Gather of one row again and again": model_of(
        [helper.make_node("Gather", ["t", "i"], ["g"]), helper.make_node("Gather", ["g", "i"], ["e"]), *ending("e")],
        {"t": np.ones((1, 1000), np.float32), "i": np.zeros((1000, 1000), I64)},
    ),
    "Resize": model_of([helper.make_node("Resize", ["t", "", "", "n"], ["e"]), *ending("e")], {"t": np.ones((1, 1), np.float32), "n": np.array([1 << 20] * 2)}),
    "an outer product": model_of([helper.make_node("MatMul", ["a", "b"], ["e"]), *ending("e")], {"a": np.ones((1 << 17, 1), np.float32), "b": np.ones((1, 1 << 17), np.float32)}),
    "broadcasting": model_of([helper.make_node("Add", ["a", "b"], ["e"]), *ending("e")], {"a": np.ones((1 << 17, 1), np.float32), "b": np.ones((1, 1 << 17), np.float32)}),
    "an activation": model_of(
        [helper.make_node("Expand", ["x", "n"], ["e"]), helper.make_node("Relu", ["e"], ["y"])], {"n": np.array([1 << 12, 1 << 12, 2, 1, 2, 8, 8])}
    ),
    "an activation by Resize": model_of([helper.make_node("Resize", ["x", "", "s"], ["y"])], {"s": np.float32([1, 1, 1e9, 1e9])}),
    "an infinite scale": model_of([helper.make_node("Resize", ["x", "", "s"], ["y"])], {"s": np.float32([1, 1, np.inf, 1])}),
    "work": model_of(
        [helper.make_node("MatMul", ["a", "b"], ["e"]), *ending("e")],
        {"a": np.ones((3000, 3000), np.float32), "b": np.ones((3000, 3000), np.float32)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", FILES)
def test_small_files_do_not_take_much(what: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(FILES[what].SerializeToString())
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    with pytest.raises(ModelFileError) as caught:
        import_model(path)
    assert len(str(caught.value).splitlines()) <= 2
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10 < MEMORY
    assert time.perf_counter() - start < SECONDS


def test_what_networks_compute_is_computed(tmp_path: Path) -> None:
    """Anchors of a detector, and weights in half the precision."""
    nodes = [
        helper.make_node("Range", ["zero", "n", "one"], ["r"]),
        helper.make_node("Tile", ["r", "rows"], ["tiled"]),
        helper.make_node("Reshape", ["tiled", "plane"], ["anchors"]),
        helper.make_node("Cast", ["half"], ["w"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c", "anchors"], ["y"]),
    ]
    constants = {"zero": np.float32(0), "n": np.float32(8), "one": np.float32(1), "rows": np.array([8]), "plane": np.array([8, 8])}
    model = model_of(nodes, {**constants, "half": np.ones((4, 2, 3, 3), np.float16)})
    onnx.save(model, tmp_path / "m.onnx")
    (imported,) = import_model(tmp_path / "m.onnx")
    assert sorted(value.shape for value in imported.params.values()) == [(4, 2, 3, 3), (8, 8)]
