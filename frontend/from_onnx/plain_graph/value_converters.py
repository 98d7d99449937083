"""ONNX operators that compress only passes through, as operators of a GraphBuilder: functions of
single values, comparisons, reductions, types, and norms of single images."""

from collections.abc import Callable
from typing import Any

import onnx
import torch

from subpc.frontend.from_onnx.plain_graph.reader import OnnxGraphReader
from subpc.frontend.plain_graph.builder import type_name
from subpc.frontend.plain_graph.reader import compare, required_weight

Converter = Callable[[OnnxGraphReader, onnx.NodeProto, dict[str, Any]], Any]

_UNARY = (
    *("Log", "Sin", "Cos", "Tan", "Atan", "Reciprocal", "Sign"),
    *("Floor", "Ceil", "Round", "Softsign"),
)
_SELU = 1.67326319217681884765625, 1.05070102214813232421875


def _unary(op: str) -> Converter:
    return lambda reader, node, a: reader.builder.add(op, reader.value(node.input[0]))


def _several(op: str) -> Converter:
    return lambda reader, node, a: reader.builder.add(op, *map(reader.value, node.input))


def _compare(relation: str) -> Converter:
    return lambda reader, node, a: compare(reader, relation, *node.input)


def _selu(reader: OnnxGraphReader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    alpha, gamma = float(a.get("alpha", _SELU[0])), float(a.get("gamma", _SELU[1]))
    result = reader.builder.add("elu", reader.value(node.input[0]), alpha=alpha)
    return reader.builder.add("mul_number", result, number=gamma, reverse=False)


def _mean(reader: OnnxGraphReader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    first, *others = map(reader.value, node.input)
    for other in others:
        first = reader.builder.add("add", first, other)
    return reader.builder.add("div_number", first, number=len(node.input), reverse=False)


def _cast(reader: OnnxGraphReader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    numpy_type = onnx.helper.tensor_dtype_to_np_dtype(int(a["to"]))
    to = type_name(getattr(torch, str(numpy_type)))
    return reader.builder.add("cast", reader.value(node.input[0]), to=to)


def _group_norm(
    reader: OnnxGraphReader, node: onnx.NodeProto, a: dict[str, Any], groups: int
) -> int:
    channels = reader.shape(node.input[0])[1]
    scale, bias = (required_weight(reader, node.input[i]).value for i in (1, 2))
    # Before version 21 there is one number a group.
    tensors = {
        part: value.reshape(-1).repeat_interleave(channels // value.numel())
        for part, value in (("weight", scale), ("bias", bias))
    }
    options = {"eps": float(a.get("epsilon", 1e-5)), "groups": groups, "channels": channels}
    return reader.builder.layer(
        reader.layer_name(node), "group_norm", tensors, reader.value(node.input[0]), **options
    )


def _instance_norm(reader: OnnxGraphReader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    return _group_norm(reader, node, a, reader.shape(node.input[0])[1])


def _layer_norm(reader: OnnxGraphReader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    shape = reader.shape(node.input[0])
    own = list(shape[int(a.get("axis", -1)) % len(shape) :])
    tensors = {
        part: required_weight(reader, node.input[i]).value.reshape(own)
        for i, part in ((1, "weight"), (2, "bias"))
        if len(node.input) > i and node.input[i]
    }
    return reader.builder.layer(
        reader.layer_name(node),
        "layer_norm",
        tensors,
        reader.value(node.input[0]),
        eps=float(a.get("epsilon", 1e-5)),
        shape=own,
    )


def _extreme_place(op: str) -> Converter:
    def convert(reader: OnnxGraphReader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
        if a.get("select_last_index", 0):
            raise ValueError("the last of equal values")
        dim = int(a.get("axis", 0)) % len(reader.shape(node.input[0]))
        keep = bool(a.get("keepdims", 1))
        return reader.builder.add(op, reader.value(node.input[0]), dim=dim, keepdim=keep)

    return convert


def _norm(order: float) -> Converter:
    def convert(reader: OnnxGraphReader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
        rank = len(reader.shape(node.input[0]))
        axes = a.get("axes") or reader.numbers(node, 1) or range(rank)
        dims = sorted(int(axis) % rank for axis in axes)
        keep = bool(a.get("keepdims", 1))
        return reader.builder.add(
            "norm", reader.value(node.input[0]), order=order, dims=dims, keepdim=keep
        )

    return convert


def _cumsum(reader: OnnxGraphReader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    axis = reader.number(node.input[1])
    if axis is None or a.get("exclusive", 0) or a.get("reverse", 0):
        raise ValueError("exclusive or reverse")
    dim = int(axis) % len(reader.shape(node.input[0]))
    return reader.builder.add("cumsum", reader.value(node.input[0]), dim=dim)


def _tile(reader: OnnxGraphReader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    counts = [int(count) for count in reader.numbers(node, 1) or ()]
    return reader.builder.add("repeat", reader.value(node.input[0]), counts=counts)


CONVERTERS: dict[str, Converter] = {
    **{name: _unary(name.lower()) for name in _UNARY},
    "Not": _unary("logical_not"),
    "And": _several("logical_and"),
    "Or": _several("logical_or"),
    "Where": _several("where"),
    "Less": _compare("lt"),
    "LessOrEqual": _compare("le"),
    "Greater": _compare("gt"),
    "GreaterOrEqual": _compare("ge"),
    "Equal": _compare("eq"),
    "Selu": _selu,
    "Mean": _mean,
    "Cast": _cast,
    "InstanceNormalization": _instance_norm,
    "GroupNormalization": lambda reader, node, a: _group_norm(
        reader, node, a, int(a["num_groups"])
    ),
    "LayerNormalization": _layer_norm,
    "ArgMax": _extreme_place("argmax"),
    "ArgMin": _extreme_place("argmin"),
    "ReduceL1": _norm(1.0),
    "ReduceL2": _norm(2.0),
    "CumSum": _cumsum,
    "Tile": _tile,
}
