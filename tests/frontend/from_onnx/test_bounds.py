"""Small files that ask for much: refused in words before the memory or the time is taken."""

import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from subpc.errors import ModelFileError, SubpcError
from subpc.frontend.import_model import import_model

MEMORY = 512 << 20  # twice what folding may make
SECONDS = 10


def model_of(
    nodes: list[onnx.NodeProto], constants: dict[str, Any], opset: int = 17
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def doubled(op: str, start: str, times: int) -> Iterator[onnx.NodeProto]:
    """start, made twice as long again and again; the last result is d35 for 36 times."""
    for i in range(times):
        source = f"d{i - 1}" if i else start
        names, more = ([source, source], {"axis": 0}) if op == "Concat" else ([source, "twice"], {})
        yield helper.make_node(op, names, [f"d{i}"], name=f"d{i}", **more)


def reducing(value: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("ReduceSum", [value], ["s"], keepdims=0),
        helper.make_node("Add", ["x", "s"], ["y"]),
    ]


def constant_made_by(op: str, **constants: Any) -> onnx.ModelProto:
    """One node that computes a constant from constants; None leaves an input out."""
    names = [name if value is not None else "" for name, value in constants.items()]
    node = helper.make_node(op, names, ["c"], name="c")
    return model_of(
        [node, *reducing("c")],
        {name: value for name, value in constants.items() if value is not None},
    )


def activation_made_by(op: str, *names: str, **constants: Any) -> onnx.ModelProto:
    return model_of(
        [helper.make_node(op, ["x", *names], ["e"]), helper.make_node("Relu", ["e"], ["y"])],
        constants,
    )


def fills(count: int, shape: list[int]) -> tuple[list[str], list[onnx.NodeProto]]:
    """The names of `count` constants of `shape` that repeat one number, and the nodes that make
    them from the constant `n`."""
    names = [f"c{i}" for i in range(count)]
    one = numpy_helper.from_array(np.float32([1]))
    return names, [
        helper.make_node("ConstantOfShape", ["n"], [name], name=name, value=one) for name in names
    ]


def added(count: int, shape: list[int], *more: onnx.NodeProto, suffix: str = "") -> onnx.ModelProto:
    """Fills of `shape` that are added to the input, each behind the nodes that `more` are for
    it."""
    names, nodes = fills(count, shape)
    nodes += [
        helper.make_node(
            node.op_type,
            [name, *node.input],
            [name + suffix],
            **{a.name: helper.get_attribute_value(a) for a in node.attribute},
        )
        for name in names
        for node in more
    ]
    return model_of(
        [*nodes, helper.make_node("Sum", ["x", *(name + suffix for name in names)], ["y"])],
        {"n": np.array(shape)},
    )


def in_branches(count: int, shape: list[int]) -> onnx.ModelProto:
    """The same, each in the branch of an If that is taken."""
    names, nodes = fills(count, shape)
    wrapped = []
    for name, node in zip(names, nodes, strict=True):
        inside = helper.make_graph(
            [node], name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)]
        )
        wrapped.append(
            helper.make_node("If", ["yes"], [f"{name}.out"], then_branch=inside, else_branch=inside)
        )
    total = helper.make_node("Sum", ["x", *(f"{name}.out" for name in names)], ["y"])
    return model_of([*wrapped, total], {"n": np.array(shape), "yes": np.array(True)})


def in_functions(calls: int, body: list[onnx.NodeProto]) -> onnx.ModelProto:
    """A function of the model's own that makes a constant `made` of nothing, called again and
    again; all are added to the input."""
    names = [f"c{i}" for i in range(calls)]
    nodes = [helper.make_node("make", [], [name], domain="own") for name in names]
    model = model_of([*nodes, helper.make_node("Sum", ["x", *names], ["y"])], {})
    model.functions.append(
        helper.make_function("own", "make", [], ["made"], body, [helper.make_opsetid("", 17)])
    )
    model.opset_import.append(helper.make_opsetid("own", 1))
    return model


def chained_layers(count: int, channels: int) -> onnx.ModelProto:
    """Convolutions of 1x1 with filled weights."""
    names, nodes = fills(count, [channels, channels, 1, 1])
    values = ["start", *(f"v{i}" for i in range(count))]
    nodes += [
        helper.make_node("Conv", [values[i], name], [values[i + 1]]) for i, name in enumerate(names)
    ]
    start = helper.make_node("Conv", ["x", "first"], ["start"])
    constants = {
        "n": np.array([channels, channels, 1, 1]),
        "first": np.ones((channels, 2, 1, 1), F32),
    }
    return model_of([start, *nodes, helper.make_node("Identity", values[-1:], ["y"])], constants)


F32 = np.float32
SIXTEEN = np.ones(16, F32)
SHAPES = [
    helper.make_node("Shape", ["x"], ["t"]),
    *doubled("Concat", "t", 36),
    helper.make_node("Cast", ["d35"], ["f"], to=1),
]
ROWS = helper.make_node("Gather", ["g", "i"], ["e"])
BIG = [1, 2, 8, 200 << 14]  # of 200 MiB
CONSTANT_SHAPE = helper.make_node(
    "Constant", [], ["n"], value=numpy_helper.from_array(np.array(BIG))
)
MEGABYTE = numpy_helper.from_array(np.ones((1, 2, 8, 1 << 14), F32))
COLUMN, ROW = np.ones((1 << 17, 1), F32), np.ones((1, 1 << 17), F32)

FILES: dict[str, onnx.ModelProto] = {
    "Range": constant_made_by("Range", start=0.0, limit=3e10, step=1.0),
    "Range in tiny steps": constant_made_by("Range", start=0.0, limit=1.0, step=1e-300),
    "Range of no step": constant_made_by("Range", start=0.0, limit=1.0, step=0.0),
    "doublings by Concat": model_of(
        [*doubled("Concat", "t", 36), *reducing("d35")], {"t": SIXTEEN}
    ),
    "doublings by Tile": model_of(
        [*doubled("Tile", "t", 36), *reducing("d35")], {"t": SIXTEEN, "twice": np.array([2])}
    ),
    "doublings of a shape": model_of([*SHAPES, *reducing("f")], {}),
    "many that are each small": added(500, [1, 2, 8, 1 << 20]),
    "fills that are added": added(5, BIG),
    "fills that are turned": added(
        5, BIG, helper.make_node("Transpose", [], [], perm=[0, 1, 3, 2]), suffix="t"
    ),
    "fills that are computed with": added(5, BIG, helper.make_node("Neg", [], []), suffix="n"),
    "fills that are summed up": added(
        5, BIG, helper.make_node("ReduceMean", [], [], keepdims=1), suffix="s"
    ),
    "fills side by side": added(5, BIG, helper.make_node("Concat", ["x"], [], axis=3), suffix="c"),
    "fills in branches": in_branches(5, BIG),
    "fills in functions": in_functions(
        5,
        [
            CONSTANT_SHAPE,
            helper.make_node(
                "ConstantOfShape", ["n"], ["made"], value=numpy_helper.from_array(F32([1]))
            ),
        ],
    ),
    "a weight in a function that is called often": in_functions(
        1000, [helper.make_node("Constant", [], ["made"], value=MEGABYTE)]
    ),
    "an index that takes hours": constant_made_by(
        "GatherElements", t=np.ones((4, 5), F32), i=np.full((4, 5), 1 << 62)
    ),
    "layers of fills": chained_layers(5, 8192),
    "Expand": constant_made_by("Expand", t=F32([1]), n=np.array([1 << 20, 1 << 20])),
    "a product that overflows": constant_made_by("Tile", t=np.ones(4, F32), n=np.array([1 << 62])),
    "ConstantOfShape": constant_made_by("ConstantOfShape", n=np.array([1 << 40, 3])),
    "Pad": constant_made_by("Pad", t=SIXTEEN, n=np.array([1 << 30, 1 << 30])),
    "OneHot": constant_made_by("OneHot", i=np.arange(1000), n=np.array(1 << 30), v=F32([0, 1])),
    "Resize": constant_made_by(
        "Resize", t=np.ones((1, 1), F32), roi=None, scales=None, n=np.array([1 << 20, 1 << 20])
    ),
    "an outer product": constant_made_by("MatMul", a=COLUMN, b=ROW),
    "broadcasting": constant_made_by("Add", a=COLUMN, b=ROW),
    "work": constant_made_by("MatMul", a=np.ones((3000, 3000), F32), b=np.ones((3000, 3000), F32)),
    "one row again and again": model_of(
        [helper.make_node("Gather", ["t", "i"], ["g"]), ROWS, *reducing("e")],
        {"t": np.ones((1, 1000), F32), "i": np.zeros((1000, 1000), np.int64)},
    ),
    "an activation": activation_made_by(
        "Expand", "n", n=np.array([1 << 12, 1 << 12, 2, 1, 2, 8, 8])
    ),
    "an activation by Resize": activation_made_by("Resize", "", "s", s=F32([1, 1, 1e9, 1e9])),
    "an infinite scale": activation_made_by("Resize", "", "s", s=F32([1, 1, np.inf, 1])),
}


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
    constants = {
        "zero": np.float32(0),
        "n": np.float32(8),
        "one": np.float32(1),
        "rows": np.array([8]),
        "plane": np.array([8, 8]),
    }
    model = model_of(nodes, {**constants, "half": np.ones((4, 2, 3, 3), np.float16)})
    onnx.save(model, tmp_path / "m.onnx")
    (imported,) = import_model(tmp_path / "m.onnx")
    assert sorted(value.shape for value in imported.params.values()) == [(4, 2, 3, 3), (8, 8)]


def test_networks_whose_weights_are_fills_are_read(tmp_path: Path) -> None:
    """Files of networks without their weights have layers of hundreds of megabytes in a few
    kilobytes; unread fills take nothing."""
    model = chained_layers(1, 8448)  # 272 MiB
    unread = [helper.make_node("ConstantOfShape", ["many"], [f"u{i}"]) for i in range(20)]
    model.graph.node.extend([*unread, helper.make_node("Transpose", ["u0"], ["unread"])])
    model.graph.initializer.append(numpy_helper.from_array(np.array([1 << 28]), "many"))
    onnx.save(model, tmp_path / "m.onnx")
    (imported,) = import_model(tmp_path / "m.onnx")
    assert sorted(value.shape for value in imported.params.values()) == [
        (8448, 2, 1, 1),
        (8448, 8448, 1, 1),
    ]


@pytest.mark.parametrize("operator", ["Gather", "GatherElements", "GatherND"])
@pytest.mark.parametrize(("index", "inside"), [(-1, True), (5, False)])
def test_indices_that_are_computed_from_constants(
    operator: str, index: int, inside: bool, tmp_path: Path
) -> None:
    """An index outside is refused though the file holds its parts only."""
    ranks = {"Gather": (1,), "GatherElements": (1, 1), "GatherND": (1, 1)}
    parts = [np.full(ranks[operator], value, np.int64) for value in (4, index - 4)]
    graph = helper.make_graph(
        [
            helper.make_node("Add", ["a", "b"], ["index"]),
            helper.make_node(operator, ["x", "index"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [4, 3])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [numpy_helper.from_array(part, name) for part, name in zip(parts, "ab", strict=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "m.onnx")
    if inside:
        import_model(tmp_path / "m.onnx")
        return
    with pytest.raises(SubpcError, match="index 5 along axis 0, which has 4 elements"):
        import_model(tmp_path / "m.onnx")
