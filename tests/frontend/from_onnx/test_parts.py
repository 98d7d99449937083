"""Damaged and contradictory parts of ONNX files: one or two lines that name the part."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from subpc.compiler.compile_model import compile
from subpc.errors import SubpcError
from subpc.frontend.import_model import import_model

CONV = helper.make_node("Conv", ["x", "w"], ["y"], name="n")
SHAPE = [2, 2, 1, 1]
WEIGHT = np.arange(4, dtype=np.float32).reshape(SHAPE)


def model_of(
    *nodes: onnx.NodeProto,
    weights: list[TensorProto] | None = None,
    shape: Any = (1, 2, 8, 8),
    dtype: int = 1,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes) or [CONV],
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(WEIGHT, "w")] if weights is None else weights,
    )
    graph.input[0].type.tensor_type.elem_type = dtype
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def weight(
    dims: list[int] = SHAPE,
    raw: bytes | None = WEIGHT.tobytes(),
    kind: int = TensorProto.FLOAT,
    **outside: Any,
) -> onnx.ModelProto:
    """A model with a weight as it is said to be; outside: where in another file it lies."""
    tensor = TensorProto(name="w", data_type=kind, dims=dims)
    if outside:
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in outside.items():
            tensor.external_data.add(key=key, value=str(value))
    elif raw is not None:
        tensor.raw_data = raw
    return model_of(weights=[tensor])


def changed(change: Callable[[onnx.ModelProto], Any]) -> onnx.ModelProto:
    model = model_of()
    change(model)
    return model


def relu(source: str, target: str) -> onnx.NodeProto:
    return helper.make_node("Relu", [source], [target], name=f"to_{target}")


def add(other: str, target: str) -> onnx.NodeProto:
    return helper.make_node("Add", ["x", other], [target], name=f"add_{target}")


def sparse(model: onnx.ModelProto) -> None:
    tensor = model.graph.sparse_initializer.add(dims=[4])
    tensor.values.CopyFrom(numpy_helper.from_array(np.ones(1, np.float32), "s"))
    tensor.indices.CopyFrom(numpy_helper.from_array(np.array([0]), "i"))


NAME = "n" * 10**6
BAD: dict[str, tuple[onnx.ModelProto, str]] = {
    "data that are cut": (weight(raw=b"abc"), "'w'.*16 bytes, but has 3"),
    "data that are too long": (weight(raw=b"a" * 64), "'w'.*16 bytes, but has 64"),
    "no data": (weight(raw=None), "'w'|weight|value field"),
    "an unknown type": (weight(kind=99), "'w'.*type 99"),
    "extents below zero": (weight(dims=[-2, -2, 1, 1]), "w"),
    "extents that overflow": (weight(dims=[2**40, 2**40]), "'w'"),
    "text": (weight(kind=TensorProto.STRING, raw=None), "'w' holds text"),
    "a weight of another rank": (weight(dims=[2, 2]), "n"),
    "an absolute path": (weight(location="/etc/passwd"), "another file.*/etc/passwd"),
    "a path to the outside": (weight(location="../../etc/passwd"), "another file"),
    "a file that is not there": (weight(location="nowhere.bin"), "another file.*nowhere.bin"),
    "a link": (weight(location="link.bin"), "another file.*link"),
    "a pipe": (weight(location="pipe"), "another file"),
    "an offset behind the end": (weight(location="w.bin", offset=10**6), "another file.*1000000"),
    "an offset that is no number": (weight(location="w.bin", offset="abc"), "another file"),
    "a length behind the end": (
        weight(location="w.bin", length=10**12),
        "16 bytes, but 1000000000000",
    ),
    "more than there is": (
        weight(dims=[1 << 14, 1 << 14, 1, 1], location="w.bin"),
        "reads 1073741824 bytes from files that hold 16",
    ),
    "a value that nothing makes": (
        model_of(add("nowhere", "y")),
        "Node add_y .*'nowhere', which nothing",
    ),
    "a circle": (
        model_of(add("b", "a"), relu("a", "b"), relu("b", "y")),
        "circle: add_a, to_b, to_y",
    ),
    "a value made twice": (model_of(relu("x", "y"), relu("x", "y")), "y"),
    "no outputs": (changed(lambda m: m.graph.ClearField("output")), "no outputs"),
    "no opset": (changed(lambda m: m.ClearField("opset_import")), "0 opsets"),
    "two opsets": (changed(lambda m: m.opset_import.add(domain="ai.onnx", version=12)), "2 opsets"),
    "an opset below zero": (
        changed(lambda m: setattr(m.opset_import[0], "version", -1)),
        "opset -1",
    ),
    "an opset to come": (changed(lambda m: setattr(m.opset_import[0], "version", 99)), "opset 99"),
    "a format to come": (changed(lambda m: setattr(m, "ir_version", 999)), "999"),
    "sparse tensors": (changed(sparse), "sparse tensors; store them dense"),
    "an input of an unknown type": (model_of(dtype=99), "type 99"),
    "an input without a type": (changed(lambda m: m.graph.input[0].type.Clear()), "x"),
    "an input of 10^24 values": (
        model_of(shape=(1, 2, 2**40, 2**40)),
        "makes .* elements; at most",
    ),
    "a name of a megabyte": (
        model_of(helper.make_node("Frob", ["x"], ["y"], name=NAME)),
        r"Frob \(in n*\.\.\.\)",
    ),
    "padding by an unknown name": (
        model_of(helper.make_node("Conv", ["x", "w"], ["y"], auto_pad="FOO")),
        "'FOO'; accepted: NOTSET",
    ),
    "a window that its weights do not have": (
        model_of(helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=[3, 3])),
        "weights of",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_parts_are_named(what: str, tmp_path: Path) -> None:
    model, words = BAD[what]
    (tmp_path / "w.bin").write_bytes(WEIGHT.tobytes())
    (tmp_path / "link.bin").symlink_to(tmp_path / "w.bin")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(SubpcError, match=words) as caught:
        import_model(tmp_path / "m.onnx")
    assert 1 <= len(str(caught.value).splitlines()) <= 2
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("levels", [3, 30])
def test_subgraphs_in_subgraphs(levels: int, tmp_path: Path) -> None:
    """Branches in branches."""
    graph = helper.make_graph(
        [relu("x", "y")], "g", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    )
    for _ in range(levels):
        node = helper.make_node(
            "If", ["c"], ["y"], then_branch=graph, else_branch=onnx.GraphProto(name="e")
        )
        graph = helper.make_graph(
            [node], "g", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
        )
    (tmp_path / "m.onnx").write_bytes(model_of(*graph.node).SerializeToString())
    with pytest.raises(SubpcError) as caught:
        import_model(tmp_path / "m.onnx")
    assert len(str(caught.value).splitlines()) <= 2


@pytest.mark.parametrize(
    "old", [b"nowhere", b"guilty", b"NOTSET"], ids=["a value", "a node", "an attribute"]
)
def test_text_that_is_none(old: bytes, tmp_path: Path) -> None:
    """Bytes that are not UTF-8 where a name has to be."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["nowhere"], name="guilty", auto_pad="NOTSET"),
        relu("nowhere", "y"),
    ]
    content = model_of(*nodes).SerializeToString().replace(old, b"\xf6" + old[1:], 1)
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(SubpcError) as caught:
        import_model(tmp_path / "m.onnx")
    assert len(str(caught.value).splitlines()) <= 2


def test_lists_of_numbers_of_another_length(tmp_path: Path) -> None:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=SHAPE, float_data=[1.0] * 5)
    (tmp_path / "m.onnx").write_bytes(model_of(weights=[tensor]).SerializeToString())
    with pytest.raises(SubpcError, match="'w'"):
        import_model(tmp_path / "m.onnx")


def test_weights_in_another_file(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"----" + WEIGHT.tobytes())
    (tmp_path / "m.onnx").write_bytes(weight(location="w.bin", offset=4).SerializeToString())
    (imported,) = import_model(tmp_path / "m.onnx")
    np.testing.assert_array_equal(next(iter(imported.params.values())), WEIGHT)


def test_nodes_in_any_order(tmp_path: Path) -> None:
    nodes = [
        relu("b", "y"),
        helper.make_node("Neg", ["a"], ["b"]),
        helper.make_node("Abs", ["x"], ["a"]),
    ]
    onnx.save(model_of(*nodes), tmp_path / "m.onnx")
    x = np.random.default_rng(0).standard_normal((1, 2, 8, 8)).astype(np.float32)
    np.testing.assert_array_equal(compile(tmp_path / "m.onnx")(x), np.maximum(-np.abs(x), 0))
