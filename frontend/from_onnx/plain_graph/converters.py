"""ONNX operators as layers and operators of a GraphBuilder; see shape_converters for those that
only move values."""

import math
from collections.abc import Callable
from typing import Any

import onnx
import torch

from subpc.algorithms.file_format.graph.network import LAYER
from subpc.frontend.from_onnx.plain_graph import shape_converters as shapes
from subpc.frontend.from_onnx.plain_graph import value_converters as values
from subpc.frontend.from_onnx.plain_graph import window_converters as windows
from subpc.frontend.from_onnx.plain_graph.reader import OnnxGraphReader
from subpc.frontend.plain_graph.reader import (
    arithmetic,
    batch_norm,
    clip,
    required_weight,
)

Converter = Callable[[OnnxGraphReader, onnx.NodeProto, dict[str, Any]], Any]
# Of a float32 that stands for 1/6 in HardSigmoid.
_ROUNDING = 1e-7


def _weights(
    reader: OnnxGraphReader, node: onnx.NodeProto, **places: int
) -> dict[str, torch.Tensor]:
    present = {
        name: index
        for name, index in places.items()
        if len(node.input) > index and node.input[index]
    }
    return {
        name: required_weight(reader, node.input[index]).value for name, index in present.items()
    }


def _conv(reader: OnnxGraphReader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    tensors = _weights(reader, node, weight=1, bias=2)
    x, options = windows.window(reader, node, a, list(tensors["weight"].shape[2:]), 0.0)
    return reader.builder.layer(
        reader.layer_name(node), "conv2d", tensors, x, **options, groups=int(a.get("group", 1))
    )


def _transposed(reader: OnnxGraphReader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    tensors = _weights(reader, node, weight=1, bias=2)
    pads = list(a.get("pads", [0, 0, 0, 0]))
    if len(pads) != 4 or pads[:2] != pads[2:]:
        raise ValueError("padding that differs from side to side")
    options = {
        "stride": list(a.get("strides", [1, 1])),
        "padding": pads[:2],
        "dilation": list(a.get("dilations", [1, 1])),
    }
    more = {
        "groups": int(a.get("group", 1)),
        "output_padding": list(a.get("output_padding", [0, 0])),
    }
    x = reader.value(node.input[0])
    return reader.builder.layer(
        reader.layer_name(node), "conv_transpose2d", tensors, x, **options, **more
    )


def _batch_norm(reader: OnnxGraphReader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    tensors = _weights(reader, node, weight=1, bias=2, running_mean=3, running_var=4)
    eps = float(a.get("epsilon", 1e-5))
    return batch_norm(reader, reader.layer_name(node), tensors, node.input[0], eps)


def _gemm(reader: OnnxGraphReader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    if a.get("transA") or a.get("alpha", 1.0) != 1 or a.get("beta", 1.0) != 1:
        raise ValueError("transA, alpha or beta other than the usual")
    tensors = _weights(reader, node, weight=1, bias=2)
    if not a.get("transB"):
        tensors["weight"] = tensors["weight"].T.contiguous()
    if "bias" in tensors:
        tensors["bias"] = tensors["bias"].expand(len(tensors["weight"])).contiguous()
    return reader.builder.layer(
        reader.layer_name(node), "linear", tensors, reader.value(node.input[0])
    )


def _matmul(reader: OnnxGraphReader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    x, weight = node.input
    found = reader.weight(weight)
    if found is None or found.value.ndim != 2:
        return reader.builder.add("matmul", reader.value(x), reader.value(weight))
    tensors = {"weight": found.value.T.contiguous()}
    return reader.builder.layer(reader.layer_name(node), "linear", tensors, reader.value(x))


def _prelu(reader: OnnxGraphReader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    slope = required_weight(reader, node.input[1]).value
    if slope.numel() not in (1, slope.shape[0]):
        raise ValueError("a slope that is not one a channel")
    return reader.builder.layer(
        reader.layer_name(node), "prelu", {"weight": slope.reshape(-1)}, reader.value(node.input[0])
    )


def _unary(op: str, **options: tuple[str, float]) -> Converter:
    """options: option -> (attribute, its default)."""

    def convert(reader: OnnxGraphReader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
        values = {
            option: float(a.get(attribute, default))
            for option, (attribute, default) in options.items()
        }
        return reader.builder.add(op, reader.value(node.input[0]), **values)

    return convert


def _clip(reader: OnnxGraphReader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    given = (reader.numbers(node, i) or a.get(key) for i, key in ((1, "min"), (2, "max")))
    low, high = (bound[0] if isinstance(bound, list) else bound for bound in given)
    return clip(reader.builder, reader.value(node.input[0]), low, high)


def _hard_sigmoid(reader: OnnxGraphReader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    slope, offset, x = a.get("alpha", 0.2), a.get("beta", 0.5), reader.value(node.input[0])
    if abs(slope - 1 / 6) < _ROUNDING and offset == 0.5:
        return reader.builder.add("hardsigmoid", x)
    line = reader.builder.add("mul_number", x, number=float(slope), reverse=False)
    line = reader.builder.add("add_number", line, number=float(offset), reverse=False)
    return reader.builder.add("clip", line, low=0.0, high=1.0)


def _softmax(op: str) -> Converter:
    def convert(reader: OnnxGraphReader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
        shape = reader.shape(node.input[0])
        axis = int(a.get("axis", 1 if reader.opset < 13 else -1)) % len(shape)
        if reader.opset < 13 and math.prod(shape[axis + 1 :]) != 1:
            raise ValueError("over several axes together")
        return reader.builder.add(op, reader.value(node.input[0]), dim=axis)

    return convert


def _arithmetic(op: str) -> Converter:
    """Two values, one of which may be a constant; a batch norm takes in a scale or an offset a
    channel behind it."""

    def convert(reader: OnnxGraphReader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
        if _into_batch_norm(reader, node):
            return reader.values[next(name for name in node.input if name in reader.values)]
        left, right = node.input
        return arithmetic(reader, op, left, right)

    return convert


def _into_batch_norm(reader: OnnxGraphReader, node: onnx.NodeProto) -> bool:
    """Multiply or shift the batch norm that the node alone reads by a constant a channel, where it
    is that."""
    weights = {name: reader.weight(name) for name in node.input}
    names, given = (
        [n for n, weight in weights.items() if weight is None],
        [w.value for w in weights.values() if w is not None],
    )
    if (
        node.op_type not in ("Mul", "Add")
        or len(names) != 1
        or len(given) != 1
        or not reader.is_read_once(names[0])
    ):
        return False
    made, layers = reader.builder.nodes[reader.value(names[0]) - 1], reader.builder.layers
    layer = made.options.get("name", "") if made.op == LAYER else ""
    if layer not in layers or layers[layer][0] != "batch_norm":
        return False
    if (
        sum(other.options == made.options for other in reader.builder.nodes if other.op == LAYER)
        > 1
    ):
        return False  # used a second time
    tensors, constant = reader.builder.tensors, given[0]
    if (
        constant.numel() != len(tensors[f"{layer}.bias"])
        or constant.dim() < 3
        or constant.shape[-3] != constant.numel()
    ):
        return False
    for part in ("weight", "bias") if node.op_type == "Mul" else ("bias",):
        own = tensors[f"{layer}.{part}"]
        tensors[f"{layer}.{part}"] = (
            own * constant.reshape(-1) if node.op_type == "Mul" else own + constant.reshape(-1)
        )
    return True


def _folded(op: str) -> Converter:
    """Sum, Max and Min of any number of values."""

    def convert(reader: OnnxGraphReader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
        first, *others = (reader.value(name) for name in node.input)
        for other in others:
            first = reader.builder.add(op, first, other)
        return int(first)

    return convert


def _pow(reader: OnnxGraphReader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    exponent = reader.number(node.input[1])
    if exponent is None:
        raise ValueError("an exponent that is not one number")
    return reader.builder.add("pow", reader.value(node.input[0]), exponent=exponent)


def _reduce(op: str) -> Converter:
    def convert(reader: OnnxGraphReader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
        rank = len(reader.shape(node.input[0]))
        axes = a.get("axes") or reader.numbers(node, 1) or range(rank)
        dims = sorted(int(axis) % rank for axis in axes)
        return reader.builder.add(
            op, reader.value(node.input[0]), dims=dims, keepdim=bool(a.get("keepdims", 1))
        )

    return convert


def _local_response_norm(reader: OnnxGraphReader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    options = {
        "alpha": float(a.get("alpha", 1e-4)),
        "beta": float(a.get("beta", 0.75)),
        "k": float(a.get("bias", 1.0)),
    }
    return reader.builder.add(
        "local_response_norm", reader.value(node.input[0]), size=int(a["size"]), **options
    )


def _gelu(reader: OnnxGraphReader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    return reader.builder.add(
        "gelu", reader.value(node.input[0]), approximate=a.get("approximate", "none")
    )


CONVERTERS: dict[str, Converter] = {
    "Conv": _conv,
    "ConvTranspose": _transposed,
    "BatchNormalization": _batch_norm,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "PRelu": _prelu,
    **windows.CONVERTERS,
    "Relu": _unary("relu"),
    "Sigmoid": _unary("sigmoid"),
    "Tanh": _unary("tanh"),
    "Exp": _unary("exp"),
    "Erf": _unary("erf"),
    "Sqrt": _unary("sqrt"),
    "Abs": _unary("abs"),
    "Neg": _unary("neg"),
    "Softplus": _unary("softplus"),
    "HardSwish": _unary("hardswish"),
    "Mish": _unary("mish"),
    "Elu": _unary("elu", alpha=("alpha", 1.0)),
    "LeakyRelu": _unary("leaky_relu", slope=("alpha", 0.01)),
    "Gelu": _gelu,
    "Clip": _clip,
    "HardSigmoid": _hard_sigmoid,
    "Softmax": _softmax("softmax"),
    "LogSoftmax": _softmax("log_softmax"),
    "Add": _arithmetic("add"),
    "Sub": _arithmetic("sub"),
    "Mul": _arithmetic("mul"),
    "Div": _arithmetic("div"),
    "Pow": _pow,
    "Sum": _folded("add"),
    "Max": _folded("maximum"),
    "Min": _folded("minimum"),
    "ReduceMean": _reduce("mean"),
    "ReduceSum": _reduce("sum"),
    "ReduceMax": _reduce("max"),
    "ReduceMin": _reduce("min"),
    "LRN": _local_response_norm,
    **shapes.CONVERTERS,
    **values.CONVERTERS,
}
