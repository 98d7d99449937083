"""aten operators as layers and operators of a GraphBuilder. Each converter gives a value's number,
or a list of them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from subpc.frontend.from_torch.nodes import arguments
from subpc.frontend.from_torch.plain_graph import shape_converters as shapes
from subpc.frontend.from_torch.plain_graph import value_converters as values
from subpc.frontend.from_torch.plain_graph.reader import (
    Made,
    ProgramReader,
    rank_of,
    shape_of,
)
from subpc.frontend.from_torch.plain_graph.shape_converters import pair
from subpc.frontend.plain_graph.reader import (
    arithmetic,
    batch_norm,
    clip,
    required_weight,
)

Converter = Callable[[fx.Node, ProgramReader], Made | None]


def _layer_name(reader: ProgramReader, node: Any) -> str:
    """`layer1.0.conv1` for a weight `layer1.0.conv1.weight`, and `kernel` for `kernel`."""
    name = required_weight(reader, node).name
    head, _, last = name.rpartition(".")
    return head if head and last in ("weight", "weight_v", "kernel", "running_mean") else name


def _tensors(reader: ProgramReader, **nodes: Any) -> dict[str, torch.Tensor]:
    """The weights among the arguments; ValueError where one is computed from the input."""
    return {
        name: required_weight(reader, node).value
        for name, node in nodes.items()
        if node is not None
    }


def _conv(node: fx.Node, reader: ProgramReader) -> int:
    a = arguments(node)
    tensors = _tensors(reader, weight=a["weight"], bias=a["bias"])
    options: dict[str, Any] = {
        "stride": pair(a["stride"]),
        "padding": a["padding"],
        "dilation": pair(a["dilation"]),
    }
    name, x = _layer_name(reader, a["weight"]), reader.value(a["input"])
    if isinstance(a["padding"], str):
        x, options["padding"] = _same(a["padding"], options, tensors["weight"], x, reader)
    options["padding"] = pair(options["padding"])
    if a.get("transposed"):
        options["output_padding"] = pair(a["output_padding"])
    kind = (
        "conv_transpose2d"
        if a.get("transposed") or ("output_padding" in a and "transposed" not in a)
        else "conv2d"
    )
    if kind == "conv_transpose2d":
        options.setdefault("output_padding", pair(a["output_padding"]))
    return reader.builder.layer(name, kind, tensors, x, **options, groups=int(a["groups"]))


def _same(
    mode: str, options: dict[str, Any], weight: torch.Tensor, x: int, reader: ProgramReader
) -> tuple[int, list[int]]:
    """Padding 'same': the odd pixel at the end."""
    if mode == "valid":
        return x, [0, 0]
    total = [
        dilation * (kernel - 1)
        for dilation, kernel in zip(options["dilation"], weight.shape[2:], strict=True)
    ]
    if all(n % 2 == 0 for n in total):
        return x, [n // 2 for n in total]
    pads = [extent for n in reversed(total) for extent in (n // 2, n - n // 2)]
    return reader.builder.add("pad", x, pads=pads, mode="constant", value=0.0), [0, 0]


def _batch_norm(node: fx.Node, reader: ProgramReader) -> list[int]:
    a = arguments(node)
    parts = {
        "weight": a["weight"],
        "bias": a["bias"],
        "running_mean": a["running_mean"],
        "running_var": a["running_var"],
    }
    tensors = _tensors(reader, **parts)
    first = a["weight"] if a["weight"] is not None else a["running_mean"]
    name, eps = _layer_name(reader, first), float(a["eps"])
    return [batch_norm(reader, name, tensors, a["input"], eps)]


def _instance_norm(node: fx.Node, reader: ProgramReader) -> list[int]:
    """Statistics of the one image that the program was exported for: a group for each channel."""
    a = arguments(node)
    batch, channels = shape_of(a["input"])[:2]
    if batch != 1:
        raise ValueError("statistics of a batch")
    tensors = _tensors(reader, weight=a["weight"], bias=a["bias"])
    name = _turned_name(a["weight"], reader) if a["weight"] is not None else node.name
    options = {"eps": float(a["eps"]), "groups": channels, "channels": channels}
    return [reader.builder.layer(name, "group_norm", tensors, reader.value(a["input"]), **options)]


def _linear(node: fx.Node, reader: ProgramReader) -> int:
    a = arguments(node)
    tensors = _tensors(reader, weight=a["weight"], bias=a["bias"])
    return reader.builder.layer(
        _layer_name(reader, a["weight"]), "linear", tensors, reader.value(a["input"])
    )


def _matrix(node: fx.Node, reader: ProgramReader) -> int:
    """addmm(bias, x, w) and mm(x, w): a linear layer as other tools leave it, its weight turned."""
    a = arguments(node)
    x, weight = (a["mat1"], a["mat2"]) if "mat1" in a else (a["self"], a["mat2"])
    if any(a.get(key, 1) != 1 for key in ("alpha", "beta")):
        raise ValueError("alpha or beta other than 1")
    source = reader.weight(weight)
    if source is None:
        return reader.builder.add("matmul", reader.value(x), reader.value(weight))
    tensors = {"weight": source.value.T}
    if "mat1" in a:
        tensors |= _tensors(reader, bias=a["self"])
    return reader.builder.layer(_turned_name(weight, reader), "linear", tensors, reader.value(x))


def _turned_name(node: fx.Node, reader: ProgramReader) -> str:
    """The layer that a transposed weight comes from."""
    while node.op == "call_function" and len(node.all_input_nodes) == 1:
        node = node.all_input_nodes[0]
    return _layer_name(reader, node) if reader.weight(node) is not None else str(node.name)


def _layer_norm(node: fx.Node, reader: ProgramReader) -> int:
    a = arguments(node)
    tensors = _tensors(reader, weight=a["weight"], bias=a["bias"])
    name = _layer_name(reader, a["weight"]) if a["weight"] is not None else node.name
    shape = [int(n) for n in a["normalized_shape"]]
    return reader.builder.layer(
        name, "layer_norm", tensors, reader.value(a["input"]), eps=float(a["eps"]), shape=shape
    )


def _group_norm(node: fx.Node, reader: ProgramReader) -> list[int]:
    a = arguments(node)
    tensors = _tensors(reader, weight=a["weight"], bias=a["bias"])
    name = _layer_name(reader, a["weight"]) if a["weight"] is not None else node.name
    options = {"eps": float(a["eps"]), "groups": int(a["group"]), "channels": int(a["C"])}
    return [reader.builder.layer(name, "group_norm", tensors, reader.value(a["input"]), **options)]


def _prelu(node: fx.Node, reader: ProgramReader) -> int:
    a = arguments(node)
    tensors = _tensors(reader, weight=a["weight"])
    return reader.builder.layer(
        _layer_name(reader, a["weight"]), "prelu", tensors, reader.value(a["self"])
    )


def _unary(op: str, **names: str) -> Converter:
    """An operator of one input; names: option -> name of the argument that it is."""

    def convert(node: fx.Node, reader: ProgramReader) -> int:
        a = arguments(node)
        options = {
            option: _number(a[argument]) if not isinstance(a[argument], str) else a[argument]
            for option, argument in names.items()
        }
        return reader.builder.add(op, reader.value(node.args[0]), **options)

    return convert


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _hardtanh(node: fx.Node, reader: ProgramReader) -> int:
    a = arguments(node)
    low = a.get("min_val", a.get("min"))
    high = a.get("max_val", a.get("max"))
    return clip(reader.builder, reader.value(node.args[0]), low, high)


def _arithmetic(op: str, reverse: bool = False) -> Converter:
    """self op alpha * other, where other may be a number."""

    def convert(node: fx.Node, reader: ProgramReader) -> int:
        a = arguments(node)
        x, y = a["self"], a["other"]
        if a.get("alpha", 1) != 1:
            if not isinstance(y, fx.Node):
                y = y * a["alpha"]
            else:
                scaled = reader.builder.add(
                    "mul_number", reader.value(y), number=float(a["alpha"]), reverse=False
                )
                return reader.builder.add(op, reader.value(x), scaled)
        return arithmetic(reader, op, x, y, reverse=reverse)

    return convert


def _divide(node: fx.Node, reader: ProgramReader) -> Made | None:
    if arguments(node).get("rounding_mode") is not None:
        raise ValueError("division with rounding")
    return _arithmetic("div")(node, reader)


def _pow(node: fx.Node, reader: ProgramReader) -> int:
    a = arguments(node)
    return reader.builder.add("pow", reader.value(a["self"]), exponent=float(a["exponent"]))


def _extreme(op: str) -> Converter:
    return lambda node, reader: reader.builder.add(op, *(reader.value(arg) for arg in node.args))


def _soft(op: str, node: fx.Node, reader: ProgramReader) -> int:
    return reader.builder.add(
        op, reader.value(node.args[0]), dim=arguments(node)["dim"] % rank_of(node)
    )


_SAME = (
    "relu",
    "sigmoid",
    "tanh",
    "silu",
    "mish",
    "hardswish",
    "hardsigmoid",
    "exp",
    "erf",
    "sqrt",
    "abs",
    "neg",
)
CONVERTERS: dict[str, Converter] = {
    **{f"aten.{name}.default": _unary(name) for name in _SAME},
    "aten.gelu.default": _unary("gelu", approximate="approximate"),
    "aten.leaky_relu.default": _unary("leaky_relu", slope="negative_slope"),
    "aten.hardtanh.default": _hardtanh,
    "aten.relu6.default": lambda node, reader: reader.builder.add(
        "relu6", reader.value(node.args[0])
    ),
    "aten.clamp.default": _hardtanh,
    "aten.clamp_min.default": _hardtanh,
    "aten.clamp_max.default": _hardtanh,
    "aten.conv2d.default": _conv,
    "aten.conv2d.padding": _conv,
    "aten.convolution.default": _conv,
    "aten.conv_transpose2d.input": _conv,
    "aten._native_batch_norm_legit_no_training.default": _batch_norm,
    "aten.linear.default": _linear,
    "aten.addmm.default": _matrix,
    "aten.mm.default": _matrix,
    "aten.layer_norm.default": _layer_norm,
    "aten.native_group_norm.default": _group_norm,
    "aten.prelu.default": _prelu,
    "aten.add.Tensor": _arithmetic("add"),
    "aten.add.Scalar": _arithmetic("add"),
    "aten.sub.Tensor": _arithmetic("sub"),
    "aten.sub.Scalar": _arithmetic("sub"),
    "aten.rsub.Scalar": _arithmetic("sub", reverse=True),
    "aten.mul.Tensor": _arithmetic("mul"),
    "aten.mul.Scalar": _arithmetic("mul"),
    "aten.div.Tensor": _divide,
    "aten.div.Scalar": _divide,
    "aten.pow.Tensor_Scalar": _pow,
    "aten.maximum.default": _extreme("maximum"),
    "aten.minimum.default": _extreme("minimum"),
    "aten.bmm.default": _extreme("matmul"),
    "aten.matmul.default": _extreme("matmul"),
    "aten.softmax.int": lambda node, reader: _soft("softmax", node, reader),
    "aten.log_softmax.int": lambda node, reader: _soft("log_softmax", node, reader),
    "aten._softmax.default": lambda node, reader: _soft("softmax", node, reader),
    "aten._log_softmax.default": lambda node, reader: _soft("log_softmax", node, reader),
    "aten._native_batch_norm_legit.no_stats": _instance_norm,
    **shapes.CONVERTERS,
    **values.CONVERTERS,
}
