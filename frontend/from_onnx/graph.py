"""Questions about an ONNX graph that every reader asks."""

from collections.abc import Mapping, Sequence
from typing import Any

import onnx
from onnx import helper

from subpc.errors import ConfigError, ModelFileError, SubpcError, UnsupportedModelError
from subpc.frontend.messages import printable

# Longer names fill a screen.
MAX_NAME = 200
STANDARD_DOMAINS = ("", "ai.onnx")
# Of one attribute, in words about a node.
_MAX_VALUE = 40


class NodeError(ValueError):
    """Why a node cannot be compiled, in words that follow its name."""


def node_name(node: onnx.NodeProto) -> str:
    """The node's own name, or that of its first output."""
    name = printable(node.name or (node.output[0] if node.output else node.op_type))
    return name if len(name) <= MAX_NAME else name[: MAX_NAME - 3] + "..."


def opset_of(model: onnx.ModelProto) -> int:
    """The version of the standard operators that `model` is written in."""
    return max(
        (int(entry.version) for entry in model.opset_import if entry.domain in STANDARD_DOMAINS),
        default=1,
    )


def user_inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """The inputs a caller passes: old models list their weights among the inputs too."""
    weights = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in weights]


def value_shapes(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    """The shape of every value for which it is known and static."""
    shapes = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        dims = [dim.dim_value for dim in tensor.shape.dim]
        if tensor.HasField("shape") and all(
            dim.HasField("dim_value") and dim.dim_value >= 0 for dim in tensor.shape.dim
        ):
            shapes[value.name] = tuple(dims)
    return shapes


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """The node's attributes by name, text as str."""
    values = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return {
        name: printable(value) if isinstance(value, bytes) else value
        for name, value in values.items()
    }


def wrong_shapes(reason: str, shapes: Sequence[tuple[int, ...]]) -> SubpcError:
    """The user's mistake where the user gave `shapes`, else the file's."""
    if not shapes:
        return ModelFileError(f"The shapes in the model contradict each other: {reason}")
    given = " and ".join(",".join(map(str, shape)) for shape in shapes)
    return ConfigError(f"The model cannot take input of shape {given}: {reason}")


def unsupported_use(
    node: onnx.NodeProto, types: Mapping[str, onnx.TypeProto]
) -> UnsupportedModelError:
    """The error for an operator that is known, but not with what this node gives it."""
    given = "inputs " + ", ".join(
        _in_words(types.get(name)) if name else "none" for name in node.input
    )
    plain = {
        name: value
        for name, value in attributes_of(node).items()
        if not isinstance(value, onnx.GraphProto | onnx.TensorProto)
    }
    attributes = ", ".join(
        f"{printable(name)}={printable(str(value))[:_MAX_VALUE]}" for name, value in plain.items()
    )
    return UnsupportedModelError(
        f"Node {node_name(node)} ({node.op_type}) is not supported with"
        f" {given}{' and ' if attributes else ''}{attributes}.\nReplace this layer in the model"
        " before compiling."
    )


def _in_words(value: onnx.TypeProto | None) -> str:
    if value is None or not value.tensor_type.elem_type:
        return "?"
    element = onnx.TensorProto.DataType.Name(value.tensor_type.elem_type).lower()
    dims = value.tensor_type.shape.dim
    shape = (str(dim.dim_value) if dim.HasField("dim_value") else "?" for dim in dims)
    return f"{element}[{','.join(shape)}]"
