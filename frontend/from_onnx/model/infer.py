"""The shapes of an ONNX graph's values, node after node: what each makes is known before anything
is computed."""

import math
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import defs, helper, numpy_helper, shape_inference

from subpc.errors import ModelFileError
from subpc.frontend.from_onnx.graph import node_name

# Constants of up to this many elements can decide a shape; larger ones are data.
_MAX_SHAPE = 1 << 12
# No value of a network is larger (4 GiB in float32), but a hostile file can ask for more in one
# line.
MAX_ELEMENTS = 1 << 30
# Beyond this, extents overflow where ONNX multiplies them.
_MAX_EXTENT = 1 << 31
# Operators whose constants say how much they make.
_GROWS = frozenset(
    {
        "Tile",
        "Expand",
        "ConstantOfShape",
        "Range",
        "Pad",
        "OneHot",
        "Reshape",
        "Resize",
        "Upsample",
        "EyeLike",
        "Unsqueeze",
    }
)

Types = dict[str, onnx.TypeProto]
Constants = Mapping[str, np.ndarray]


def infer_node(node: onnx.NodeProto, types: Types, constants: Constants, opset: int) -> Types:
    """Types of the node's outputs; those that cannot be known now have no shape, or are left out.

    Raises ModelFileError for what is too large, and onnx's own errors where shapes contradict each
    other.
    """
    if node.op_type in _GROWS:
        _check_numbers(node, constants)
    known = {name: types[name] for name in node.input if name in types}
    if any(name and name not in known for name in node.input):
        return {}
    small = {
        name: constants[name]
        for name in known
        if name in constants and constants[name].size <= _MAX_SHAPE
    }
    data = {
        name: numpy_helper.from_array(value, name)
        for name, value in small.items()
        if value.dtype != object
    }
    schema = defs.get_schema(node.op_type, opset, "")
    found: Types = shape_inference.infer_node_outputs(
        schema, node, known, data, opset_imports=[helper.make_opsetid("", opset)]
    )
    for name, value in found.items():
        _check_size(node, name, shape_of(value))
    return found


def shape_of(value: onnx.TypeProto | None) -> tuple[int, ...] | None:
    """The shape of a tensor, where all of it is known."""
    if (
        value is None
        or not value.HasField("tensor_type")
        or not value.tensor_type.HasField("shape")
    ):
        return None
    dims = value.tensor_type.shape.dim
    return (
        tuple(dim.dim_value for dim in dims)
        if all(dim.HasField("dim_value") for dim in dims)
        else None
    )


def type_of(array: np.ndarray) -> onnx.TypeProto:
    """The type of a constant.

    array: its element type and its shape are taken.
    """
    return helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)


def _check_size(node: onnx.NodeProto, name: str, shape: tuple[int, ...] | None) -> None:
    if shape is not None and math.prod(shape) > MAX_ELEMENTS:
        raise _too_large(node, math.prod(shape))


def _check_numbers(node: onnx.NodeProto, constants: Constants) -> None:
    """Extents that are too large for a product of two to be counted."""
    for name in node.input[1 if node.op_type not in ("ConstantOfShape", "Range") else 0 :]:
        value = constants.get(name)
        if value is None or value.size > _MAX_SHAPE or value.dtype.kind not in "iuf":
            continue
        largest = max((abs(float(number)) for number in value.reshape(-1)), default=0.0)
        if value.dtype.kind in "iu" and largest > _MAX_EXTENT and node.op_type != "Range":
            raise ModelFileError(
                f"Node {node_name(node)} ({node.op_type}) makes {largest:.0f} elements; at most"
                f" {MAX_ELEMENTS} are accepted."
            )
        if node.op_type in ("Resize", "Upsample") and not largest < _MAX_EXTENT:
            raise ModelFileError(
                f"Node {node_name(node)} ({node.op_type}) scales by {largest:.3g}; at most"
                f" {_MAX_EXTENT} is accepted."
            )
    if node.op_type == "Range" and all(
        name in constants and constants[name].size == 1 for name in node.input
    ):
        start, limit, step = (float(constants[name].reshape(())) for name in node.input)
        count = (limit - start) / step if step else math.inf
        if not count <= MAX_ELEMENTS:
            raise _too_large(node, count)


def _too_large(node: onnx.NodeProto, elements: float) -> ModelFileError:
    return ModelFileError(
        f"Node {node_name(node)} ({node.op_type}) makes {elements:.0f} elements; at most"
        f" {MAX_ELEMENTS} are accepted.\nGive a smaller input shape, or cut the model in front"
        " of it."
    )
