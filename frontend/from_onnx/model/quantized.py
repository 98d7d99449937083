"""Operators that compute with codes, of ONNX and of ONNX Runtime, opened into what they mean:
values dequantized, the operator on floats, its result quantized."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx
from onnx import helper

from subpc.frontend.from_onnx.graph import STANDARD_DOMAINS, attributes_of

MICROSOFT = "com.microsoft"
# ONNX Runtime's quantizer appends it to the names of nodes.
_SUFFIX = "_quant"


class _Opening:
    """The nodes that stand for one; names of values in between start with the name of its
    result."""

    def __init__(self, node: onnx.NodeProto) -> None:
        self.node, self.nodes = node, list[onnx.NodeProto]()
        self.inputs = [*node.input, *[""] * 9]  # what may be left out is empty
        self.attributes = attributes_of(node)

    def add(self, op: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        """A node, and the name of its result."""
        made = output or f"{self.node.output[0]}.{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [made], **attributes))
        return made

    def operator(self, op: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        """The same for what the node itself does, under its name."""
        made = self.add(op, inputs, output, **attributes)
        self.nodes[-1].name = self.node.name.removesuffix(_SUFFIX)
        return made

    def value(self, at: int, axis: int | None = None) -> str:
        """What the codes stand for that, with their scale and zero point, are inputs from `at`
        on."""
        along: dict[str, Any] = {} if axis is None else {"axis": axis}
        return self.add("DequantizeLinear", _given(self.inputs[at : at + 3]), **along)

    def result(self, value: str, at: int) -> None:
        """The node's result: a value rounded with the scale and zero point that are inputs from
        `at` on."""
        quantization = self.inputs[at : at + 2]
        self.add("QuantizeLinear", _given([value, *quantization]), self.node.output[0])

    def sums(self, at: int, *scales: str) -> list[str]:
        """A bias of whole numbers as floats, by these scales; nothing where there is none."""
        if not self.inputs[at]:
            return []
        value = self.add("Cast", [self.inputs[at]], to=onnx.TensorProto.FLOAT)
        for scale in scales:
            value = self.add("Mul", [value, scale])
        return [value]


def _given(names: Sequence[str]) -> list[str]:
    return [name for name in names if name]


def _conv(it: _Opening) -> None:
    """x, scale, zero, w, scale, zero, y's scale, zero, bias."""
    bias = it.sums(8, it.inputs[1], it.inputs[4])
    it.result(it.operator("Conv", [it.value(0), it.value(3, 0), *bias], **it.attributes), 6)


def _matmul(it: _Opening) -> None:
    it.result(it.operator("MatMul", [it.value(0), it.value(3, -1)]), 6)


def _gemm(it: _Opening) -> None:
    """a, scale, zero, b, scale, zero, c, y's scale, zero; without y's scale the result is
    floats."""
    columns = 0 if it.attributes.get("transB", 0) else 1
    scales = [it.inputs[1], it.inputs[4]]
    if (alpha := it.attributes.get("alpha", 1.0)) != 1.0:
        scales.append(it.add("Constant", [], value_float=alpha))
    operands = [it.value(0), it.value(3, columns), *it.sums(6, *scales)]
    if it.inputs[7]:
        it.result(it.operator("Gemm", operands, **it.attributes), 7)
    else:
        it.operator("Gemm", operands, it.node.output[0], **it.attributes)


def _concat(it: _Opening) -> None:
    """y's scale, zero, then each x with scale and zero."""
    values = [it.value(at) for at in range(2, len(it.node.input), 3)]
    it.result(it.operator("Concat", values, axis=it.attributes.get("axis")), 0)


def _where(it: _Opening) -> None:
    it.result(it.operator("Where", [it.inputs[0], it.value(1), it.value(4)]), 7)


def _of_two(op: str) -> Callable[[_Opening], None]:
    """a, scale, zero, b, scale, zero, y's scale, zero."""
    return lambda it: it.result(it.operator(op, [it.value(0), it.value(3)]), 6)


def _of_one(op: str) -> Callable[[_Opening], None]:
    """x, scale, zero, y's scale, zero."""
    return lambda it: it.result(it.operator(op, [it.value(0)], **_without(it, "channels_last")), 3)


def _softmax(it: _Opening) -> None:
    it.result(it.operator("Softmax", [it.value(0)], **_without(it, "opset")), 3)


def _without(it: _Opening, name: str) -> dict[str, Any]:
    return {key: value for key, value in it.attributes.items() if key != name}


def _itself(it: _Opening) -> None:
    it.operator(it.node.op_type, it.node.input, it.node.output[0], **it.attributes)


_STANDARD: Mapping[str, Callable[[_Opening], None]] = {
    "QLinearConv": _conv,
    "QLinearMatMul": _matmul,
}
_MICROSOFT: Mapping[str, Callable[[_Opening], None]] = {
    "DequantizeLinear": _itself,
    "QGemm": _gemm,
    "QLinearAdd": _of_two("Add"),
    "QLinearAveragePool": _of_one("AveragePool"),
    "QLinearConcat": _concat,
    "QLinearConv": _conv,
    "QLinearGlobalAveragePool": _of_one("GlobalAveragePool"),
    "QLinearLeakyRelu": _of_one("LeakyRelu"),
    "QLinearMul": _of_two("Mul"),
    "QLinearSigmoid": _of_one("Sigmoid"),
    "QLinearSoftmax": _softmax,
    "QLinearWhere": _where,
    "QuantizeLinear": _itself,
}


def opened_quantized(node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    """The nodes that an operator on codes stands for; None for all others."""
    if not is_quantized(node):
        return None
    opening = _Opening(node)
    (_MICROSOFT if node.domain == MICROSOFT else _STANDARD)[node.op_type](opening)
    return opening.nodes


def is_quantized(node: onnx.NodeProto) -> bool:
    """Whether opened_quantized knows the operator."""
    if node.domain == MICROSOFT:
        return node.op_type in _MICROSOFT
    return node.domain in STANDARD_DOMAINS and node.op_type in _STANDARD
