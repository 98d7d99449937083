"""ONNX operators that TVM's importer takes and gets wrong, or has no code for on a CPU: better no
library than a wrong one."""

import math
from collections.abc import Callable, Iterable

import numpy as np
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
# Codes that compiled networks round to.
_BYTES = (onnx.TensorProto.UINT8, onnx.TensorProto.INT8)
# Values are multiplied by the inverse of a scale, which is no float32 from here on downwards.
_SMALLEST = 1 / float(np.finfo("float32").max)


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


def _channels_last(node: onnx.NodeProto, graph: onnx.GraphProto) -> str:
    last = _attribute(node, "channels_last")
    return f"{node.op_type} of images with their channels last" if last else ""


def _not_bytes(node: onnx.NodeProto, graph: onnx.GraphProto) -> str:
    """Codes of other types than bytes, or that stand for nothing; those of constants are gone
    before anything is compiled, and a sum of products is an int32."""
    if any(tensor.name == node.input[0] for tensor in graph.initializer):
        return ""
    if scale := _impossible_scale(node, graph):
        return f"{node.op_type} with the scale {scale}, instead of a positive finite one,"
    known = set(_BYTES)
    if node.op_type == "DequantizeLinear":
        codes = _type_of(node.input[0], graph)
        known.add(onnx.TensorProto.INT32)
    else:
        codes = _type_of(node.input[2] if len(node.input) > 2 else "", graph)
        codes = codes or next((a.i for a in node.attribute if a.name == "output_dtype"), 0)
    if not codes or codes in known:
        return ""
    name = onnx.TensorProto.DataType.Name(codes).lower()
    return f"{node.op_type} of {name}, instead of uint8 or int8,"


def _impossible_scale(node: onnx.NodeProto, graph: onnx.GraphProto) -> str:
    found = [tensor for tensor in graph.initializer if tensor.name == node.input[1]]
    scales = [float(x) for t in found for x in numpy_helper.to_array(t).astype("float64").flat]
    return next((f"{x:g}" for x in scales if not (math.isfinite(x) and x > _SMALLEST)), "")


def _half_scales(node: onnx.NodeProto, graph: onnx.GraphProto) -> str:
    """Their products are rounded in half precision, too, which nothing here does."""
    scales = {_type_of(name, graph) for name in (*node.input[1:2], *node.input[4:5])}
    half = scales & {onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}
    return f"{node.op_type} with scales in half precision" if half else ""


_RULES: dict[str, Callable[[onnx.NodeProto, onnx.GraphProto], str]] = {
    "BatchNormalization": _batch_norm,
    "DequantizeLinear": _not_bytes,
    "Dropout": _dropout,
    "MaxPool": _first_result_only,
    "QLinearAveragePool": _channels_last,
    "QLinearConv": _channels_last,
    "QLinearGlobalAveragePool": _channels_last,
    "QLinearMatMul": _half_scales,
    "QuantizeLinear": _not_bytes,
    "RoiAlign": _region_pool,
}


def _type_of(name: str, graph: onnx.GraphProto) -> int:
    """The element type of a constant, an input or a value whose type is known; else 0."""
    types = [tensor.data_type for tensor in graph.initializer if tensor.name == name]
    values = (*graph.input, *graph.value_info)
    types += [value.type.tensor_type.elem_type for value in values if value.name == name]
    return types[0] if types else 0


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
