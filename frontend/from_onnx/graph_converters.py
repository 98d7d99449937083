"""ONNX operators as layers and operators of a GraphBuilder; see graph_onnx_shapes for those that only move values."""

import math
from collections.abc import Callable
from typing import Any

import onnx
import torch

from subpc.algorithms.file_format.graph.network import LAYER
from subpc.frontend.from_onnx import graph_shape_converters as shapes
from subpc.frontend.from_onnx import graph_window_converters as windows
from subpc.frontend.from_torch.graph_converters import clip

Converter = Callable[[Any, onnx.NodeProto, dict[str, Any]], Any]
# Of a float32 that stands for 1/6 in HardSigmoid.
_ROUNDING = 1e-7


def _weights(reader: Any, node: onnx.NodeProto, **places: int) -> dict[str, torch.Tensor]:
    present = {name: index for name, index in places.items() if len(node.input) > index and node.input[index]}
    return {name: reader.tensor(node.input[index]) for name, index in present.items()}


def _conv(reader: Any, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    tensors = _weights(reader, node, weight=1, bias=2)
    x, options = windows.window(reader, node, a, list(tensors["weight"].shape[2:]), 0.0)
    return int(reader.builder.layer(reader.layer_name(node), "conv2d", tensors, x, **options, groups=int(a.get("group", 1))))


def _transposed(reader: Any, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    tensors = _weights(reader, node, weight=1, bias=2)
    pads = list(a.get("pads", [0, 0, 0, 0]))
    if len(pads) != 4 or pads[:2] != pads[2:]:
        raise ValueError("padding that differs from side to side")
    options = {"stride": list(a.get("strides", [1, 1])), "padding": pads[:2], "dilation": list(a.get("dilations", [1, 1]))}
    more = {"groups": int(a.get("group", 1)), "output_padding": list(a.get("output_padding", [0, 0]))}
    x = reader.value(node.input[0])
    return int(reader.builder.layer(reader.layer_name(node), "conv_transpose2d", tensors, x, **options, **more))


def _batch_norm(reader: Any, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    if len(reader.shapes[node.input[0]]) != 4:
        raise ValueError("a batch norm over other than 4 dimensions")
    tensors = _weights(reader, node, weight=1, bias=2, running_mean=3, running_var=4)
    eps = float(a.get("epsilon", 1e-5))
    return int(reader.builder.layer(reader.layer_name(node), "batch_norm", tensors, reader.value(node.input[0]), eps=eps))


def _gemm(reader: Any, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    if a.get("transA") or a.get("alpha", 1.0) != 1 or a.get("beta", 1.0) != 1:
        raise ValueError("transA, alpha or beta other than the usual")
    tensors = _weights(reader, node, weight=1, bias=2)
    if not a.get("transB"):
        tensors["weight"] = tensors["weight"].T.contiguous()
    if "bias" in tensors:
        tensors["bias"] = tensors["bias"].expand(len(tensors["weight"])).contiguous()
    return int(reader.builder.layer(reader.layer_name(node), "linear", tensors, reader.value(node.input[0])))


def _matmul(reader: Any, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    x, weight = node.input
    if weight not in reader.constants or reader.constants[weight].ndim != 2:
        return int(reader.builder.add("matmul", reader.value(x), reader.value(weight)))
    tensors = {"weight": reader.tensor(weight).T.contiguous()}
    return int(reader.builder.layer(reader.layer_name(node), "linear", tensors, reader.value(x)))


def _prelu(reader: Any, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    slope = reader.tensor(node.input[1])
    if slope.numel() not in (1, slope.shape[0]):
        raise ValueError("a slope that is not one a channel")
    return int(reader.builder.layer(reader.layer_name(node), "prelu", {"weight": slope.reshape(-1)}, reader.value(node.input[0])))


def _unary(op: str, **options: tuple[str, float]) -> Converter:
    """options: option -> (attribute, its default)."""

    def convert(reader: Any, node: onnx.NodeProto, a: dict[str, Any]) -> int:
        values = {option: float(a.get(attribute, default)) for option, (attribute, default) in options.items()}
        return int(reader.builder.add(op, reader.value(node.input[0]), **values))

    return convert


def _clip(reader: Any, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    low, high = ((reader.numbers(node, i) or [a.get(key)])[0] for i, key in ((1, "min"), (2, "max")))
    return clip(reader.builder, reader.value(node.input[0]), low, high)


def _hard_sigmoid(reader: Any, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    slope, offset, x = a.get("alpha", 0.2), a.get("beta", 0.5), reader.value(node.input[0])
    if abs(slope - 1 / 6) < _ROUNDING and offset == 0.5:
        return int(reader.builder.add("hardsigmoid", x))
    line = reader.builder.add("mul_number", x, number=float(slope), reverse=False)
    line = reader.builder.add("add_number", line, number=float(offset), reverse=False)
    return int(reader.builder.add("clip", line, low=0.0, high=1.0))


def _softmax(op: str) -> Converter:
    def convert(reader: Any, node: onnx.NodeProto, a: dict[str, Any]) -> int:
        shape = reader.shapes[node.input[0]]
        axis = int(a.get("axis", 1 if reader.opset < 13 else -1)) % len(shape)
        if reader.opset < 13 and math.prod(shape[axis + 1 :]) != 1:
            raise ValueError("over several axes together")
        return int(reader.builder.add(op, reader.value(node.input[0]), dim=axis))

    return convert


def _arithmetic(op: str) -> Converter:
    """Two values, one of which may be a constant; a batch norm takes in a scale or an offset a channel behind it."""

    def convert(reader: Any, node: onnx.NodeProto, a: dict[str, Any]) -> int:
        numbers = [_single(reader, name) for name in node.input]
        left = reader.builder
        if _into_batch_norm(reader, node):
            return int(reader.values[next(name for name in node.input if name in reader.values)])
        if numbers[1] is not None:
            return int(left.add(f"{op}_number", reader.value(node.input[0]), number=numbers[1], reverse=False))
        if numbers[0] is not None:
            return int(left.add(f"{op}_number", reader.value(node.input[1]), number=numbers[0], reverse=True))
        return int(left.add(op, *(reader.value(name) for name in node.input)))

    return convert


def _into_batch_norm(reader: Any, node: onnx.NodeProto) -> bool:
    """Multiply or shift the batch norm that the node alone reads by a constant a channel, where it is that."""
    names = [name for name in node.input if name not in reader.constants]
    if node.op_type not in ("Mul", "Add") or len(names) != 1 or reader.readers[names[0]] != 1:
        return False
    made, layers = reader.builder.nodes[reader.value(names[0]) - 1], reader.builder.layers
    layer = made.options.get("name", "") if made.op == LAYER else ""
    shared = sum(other.options == made.options for other in reader.builder.nodes if other.op == LAYER) > 1
    if layer not in layers or layers[layer][0] != "batch_norm" or shared:
        return False
    tensors, constant = reader.builder.tensors, reader.tensor(next(name for name in node.input if name in reader.constants))
    if constant.numel() != len(tensors[f"{layer}.bias"]) or constant.dim() < 3 or constant.shape[-3] != constant.numel():
        return False
    for part in ("weight", "bias") if node.op_type == "Mul" else ("bias",):
        own = tensors[f"{layer}.{part}"]
        tensors[f"{layer}.{part}"] = own * constant.reshape(-1) if node.op_type == "Mul" else own + constant.reshape(-1)
    return True


def _single(reader: Any, name: str) -> float | None:
    """The number in a constant of one element that does not widen the other operand."""
    value = reader.constants.get(name)
    return float(value.reshape(())) if value is not None and value.size == 1 and value.ndim <= 1 else None


def _folded(op: str) -> Converter:
    """Sum, Max and Min of any number of values."""

    def convert(reader: Any, node: onnx.NodeProto, a: dict[str, Any]) -> int:
        first, *others = (reader.value(name) for name in node.input)
        for other in others:
            first = reader.builder.add(op, first, other)
        return int(first)

    return convert


def _pow(reader: Any, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    exponent = _single(reader, node.input[1])
    if exponent is None:
        raise ValueError("an exponent that is not one number")
    return int(reader.builder.add("pow", reader.value(node.input[0]), exponent=exponent))


def _reduce(op: str) -> Converter:
    def convert(reader: Any, node: onnx.NodeProto, a: dict[str, Any]) -> int:
        rank = len(reader.shapes[node.input[0]])
        axes = a.get("axes") or reader.numbers(node, 1) or range(rank)
        dims = sorted(int(axis) % rank for axis in axes)
        return int(reader.builder.add(op, reader.value(node.input[0]), dims=dims, keepdim=bool(a.get("keepdims", 1))))

    return convert


def _local_response_norm(reader: Any, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    options = {"alpha": float(a.get("alpha", 1e-4)), "beta": float(a.get("beta", 0.75)), "k": float(a.get("bias", 1.0))}
    return int(reader.builder.add("local_response_norm", reader.value(node.input[0]), size=int(a["size"]), **options))


def _gelu(reader: Any, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    return int(reader.builder.add("gelu", reader.value(node.input[0]), approximate=a.get("approximate", "none")))


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
    "LRN": _local_response_norm,
    **shapes.CONVERTERS,
}
