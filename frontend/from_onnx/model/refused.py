"""ONNX operators that TVM's importer takes and gets wrong, or has no code for on a CPU: better no
library than a wrong one."""

from collections.abc import Callable, Iterable

import onnx
from onnx import numpy_helper

# Sorted, counted or picked by their values: shapes or loops that compiled kernels do not have.
_OPERATORS = frozenset(
    {
        "TopK",
        "NonZero",
        "NonMaxSuppression",
        "Unique",
        "Compress",
        "ScatterElements",
        "ScatterND",
        "Scatter",
        "MaxUnpool",
    }
)


def refused(node: onnx.NodeProto, graph: onnx.GraphProto) -> str:
    """What about the node cannot be compiled, as the operator's entry in the list of unsupported
    ones; empty where nothing is wrong."""
    if node.op_type in _OPERATORS:
        return str(node.op_type)
    rule = _RULES.get(node.op_type)
    return rule(node, graph) if rule is not None else ""


def _batch_norm(node: onnx.NodeProto, graph: onnx.GraphProto) -> str:
    return (
        "BatchNormalization in training mode, instead of model.eval(),"
        if _attribute(node, "training_mode")
        else ""
    )


def _dropout(node: onnx.NodeProto, graph: onnx.GraphProto) -> str:
    if len(node.input) > 2 and _is_true(node.input[2], graph):
        return "Dropout in training mode, instead of model.eval(),"
    return "the mask of Dropout" if _reads(graph, node.output[1:]) else ""


def _region_pool(node: onnx.NodeProto, graph: onnx.GraphProto) -> str:
    return "RoiAlign with mode=max" if _attribute(node, "mode") == b"max" else ""


def _first_result_only(node: onnx.NodeProto, graph: onnx.GraphProto) -> str:
    return f"the further results of {node.op_type}" if _reads(graph, node.output[1:]) else ""


_RULES: dict[str, Callable[[onnx.NodeProto, onnx.GraphProto], str]] = {
    "BatchNormalization": _batch_norm,
    "Dropout": _dropout,
    "MaxPool": _first_result_only,
    "RoiAlign": _region_pool,
}


def _attribute(node: onnx.NodeProto, name: str, default: int = 0) -> object:
    return next(
        (onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name), default
    )


def _reads(graph: onnx.GraphProto, names: Iterable[str]) -> bool:
    """Whether anything uses one of the values."""
    wanted = {name for name in names if name}
    if not wanted:
        return False
    outputs = {value.name for value in graph.output}
    return bool(wanted & outputs) or any(wanted & set(node.input) for node in graph.node)


def _is_true(name: str, graph: onnx.GraphProto) -> bool:
    """Whether the value is a constant other than zero."""
    tensors = [tensor for tensor in graph.initializer if tensor.name == name]
    tensors += [
        a.t
        for node in graph.node
        if node.op_type == "Constant" and name in node.output
        for a in node.attribute
        if a.HasField("t")
    ]
    return any(bool(numpy_helper.to_array(tensor).any()) for tensor in tensors)
