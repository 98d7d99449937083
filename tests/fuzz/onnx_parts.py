"""ONNX files with one part exchanged: constants, attributes, names, types and sizes."""

from random import Random
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from tests.fuzz.bad_values import NUMBERS, TEXTS

_FILLS = [0.0, -1.0, 1e-45, 3e38, float("nan"), float("inf")]
_OPERATORS = [
    *["QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "QLinearAdd"],
    *["Tile", "Expand", "Range", "ConstantOfShape", "Reshape", "Pad", "Loop", "LSTM", "Concat"],
]
_INTEGERS = [int(n) for n in NUMBERS if isinstance(n, int) and abs(n) < 1 << 63] + [-9, -(1 << 62)]


def change_part(content: bytes, random: Random) -> bytes:
    """An ONNX file with one part of its graph exchanged; other bytes as they are."""
    try:
        model = onnx.load_from_string(content)
    except DecodeError:
        return content
    graph = model.graph
    if not (graph.node and graph.initializer and model.opset_import):
        return content
    node, tensor = random.choice(graph.node), random.choice(graph.initializer)
    how = random.randrange(8)
    if how == 0:
        _change_attribute(node, random)
    elif how in (1, 2):
        _change_values(tensor, random)
    elif how == 3:
        tensor.data_type = random.choice(range(26))
    elif how == 4:
        del tensor.dims[random.randrange(len(tensor.dims) + 1) :]
        tensor.dims.append(random.choice(_INTEGERS))
    elif how == 5:
        known = [name for other in graph.node for name in (*other.input, *other.output)]
        _replace_name(node, random.choice([*known, *(t for t in TEXTS if t.isascii())]), random)
    elif how == 6:
        node.op_type = random.choice(_OPERATORS)
    else:
        model.opset_import[0].version = random.choice((1, 7, 10, 13, 19, 21, 25, 1 << 40))
    return model.SerializeToString()


def _change_attribute(node: onnx.NodeProto, random: Random) -> None:
    name = random.choice((*(a.name for a in node.attribute), "axis", "group", "block_size"))
    value: Any = random.choice((random.choice(_INTEGERS), [random.choice(_INTEGERS)] * 2, 0.5))
    kept = [a for a in node.attribute if a.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, onnx.helper.make_attribute(name, value)])


def _change_values(tensor: onnx.TensorProto, random: Random) -> None:
    """A few of a constant's values, or how many it has."""
    try:
        values = np.array(numpy_helper.to_array(tensor))
    except (ValueError, TypeError, OverflowError, KeyError):
        return  # an earlier change took its meaning
    if values.dtype.kind not in "fiu":
        return
    if random.random() < 0.4:
        changed = np.resize(values, random.choice([(), (0,), (1,), (3,), (5,), (2, 2)]))
    else:
        fills = _FILLS if values.dtype.kind == "f" else [-128, 0, 127]
        changed = np.where(
            np.arange(values.size).reshape(values.shape) % random.choice((1, 3)) == 0,
            np.asarray(random.choice(fills)).astype(values.dtype),
            values,
        )
    tensor.CopyFrom(numpy_helper.from_array(changed, tensor.name))


def _replace_name(node: onnx.NodeProto, name: str, random: Random) -> None:
    places = node.input if random.random() < 0.8 and node.input else node.output
    if places:
        places[random.randrange(len(places))] = name
