"""What an ONNX graph computes from constants alone, computed once: hoisted weights, filled weights, shape arithmetic."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from subpc.errors import ModelFileError
from subpc.frontend.messages import first_line
from subpc.frontend.onnx_file import inferred
from subpc.frontend.onnx_graph import node_name, opset_of, value_shapes

# Random numbers are no constants; a quantised weight keeps its scale for the passes to see.
_NEVER = frozenset(
    {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli", "DequantizeLinear"}
)
_COPIES = frozenset({"Identity", "Dropout"})
# No network's weight is larger than this (4 GiB), but a hostile file can ask for more in one line.
_MAX_ELEMENTS = 1 << 30

Constants = dict[str, np.ndarray]


def fold_repeatedly(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fold and infer shapes in turn, until neither learns from the other: shape arithmetic decides shapes further down."""
    while True:
        before = len(model.graph.node)
        model = fold_constants(model)
        if len(model.graph.node) == before:
            return model
        model = inferred(model)


def fold_constants(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` where constants are initializers and nothing is left that could be computed now; node order and names stay."""
    shapes = value_shapes(model.graph)
    constants: Constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    aliases: dict[str, str] = {}
    nodes = []
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = aliases.get(name, name)
        if node.op_type in _COPIES and node.output[0] not in _outputs(model):
            aliases[node.output[0]] = node.input[0]
        elif not _fold(node, constants, shapes, opset_of(model)):
            nodes.append(node)
    return _rebuilt(model, nodes, constants)


def _outputs(model: onnx.ModelProto) -> set[str]:
    return {value.name for value in model.graph.output}


def _fold(node: onnx.NodeProto, constants: Constants, shapes: dict[str, tuple[int, ...]], opset: int) -> bool:
    """Add the outputs of `node` to `constants`, if they are."""
    if node.op_type == "Shape" and node.input[0] in shapes and not node.attribute:
        constants[node.output[0]] = np.array(shapes[node.input[0]], dtype=np.int64)
        return True
    if node.op_type in _NEVER or any(name and name not in constants for name in node.input):
        return False
    if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
        return False
    for name, value in zip(node.output, _evaluate(node, constants, shapes, opset), strict=False):
        constants[name] = np.asarray(value)
    return True


def _evaluate(node: onnx.NodeProto, constants: Constants, shapes: dict[str, tuple[int, ...]], opset: int) -> Iterable[Any]:
    size = max((int(np.prod(shapes.get(name, ()), dtype=object)) for name in node.output), default=0)
    if node.op_type == "ConstantOfShape":
        size = int(np.prod(constants[node.input[0]].tolist(), dtype=object))
    if size > _MAX_ELEMENTS:
        raise ModelFileError(f"Node {node_name(node)} makes a constant of {size} elements; at most {_MAX_ELEMENTS} are accepted.")
    feeds = {name: constants[name] for name in node.input if name}
    try:
        return ReferenceEvaluator(_single(node, feeds, opset)).run(None, feeds)  # type: ignore[no-any-return]
    except Exception as error:
        raise ModelFileError(f"Node {node_name(node)} ({node.op_type}) cannot be computed: {first_line(error)}") from error


def _single(node: onnx.NodeProto, feeds: Constants, opset: int) -> onnx.ModelProto:
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape) for name, value in feeds.items()
    ]
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output]
    graph = helper.make_graph([node], "constant", inputs, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def _rebuilt(model: onnx.ModelProto, nodes: list[onnx.NodeProto], constants: Constants) -> onnx.ModelProto:
    used = {name for node in nodes for name in node.input} | _outputs(model)
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:], result.graph.initializer[:]
    result.graph.node.extend(nodes)
    result.graph.initializer.extend(numpy_helper.from_array(v, name) for name, v in constants.items() if name in used)
    weights = set(constants)
    inputs = [value for value in result.graph.input if value.name not in weights]
    del result.graph.input[:]
    result.graph.input.extend(inputs)
    return result
