"""Composite ONNX operators, opened into the operators that they are defined by: those of the
model's own, and ONNX's.

ONNX says what many operators mean by a function of simpler ones. Where no converter does better,
that definition is taken.
"""

from collections.abc import Iterable, Mapping

import onnx
from onnx import helper, inliner

from subpc.errors import ModelFileError, UnsupportedModelError
from subpc.frontend.from_onnx.graph import STANDARD_DOMAINS, node_name, unsupported_use
from subpc.frontend.from_onnx.model.branches import rename_all
from subpc.frontend.messages import describe_unsupported, first_line

# Operators of ONNX that are opened wherever they are used: TVM has no converter for them, or one
# for some of their cases.
OPENED = frozenset(
    {
        *(
            "AffineGrid",
            "Attention",
            "Celu",
            "CenterCropPad",
            "NegativeLogLikelihoodLoss",
            "RMSNormalization",
            "RotaryEmbedding",
        ),
        *("SoftmaxCrossEntropyLoss", "SwiGLU", "Swish"),
    }
)
# MeanVarianceNormalization has a converter, but ONNX infers its result's shape from its definition.
_WITH_DEFAULTS = OPENED | {"MeanVarianceNormalization"}
# A file of some kilobytes can call functions that call functions, each twice; their constants are
# copied with every call.
_MAX_NODES, _MAX_BYTES = 1 << 18, 1 << 28


def without_own_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with the bodies of the functions that it brings along in place of their calls."""
    if not model.functions:
        return model
    count, size = _opened_size(model)
    if count > _MAX_NODES:
        raise ModelFileError(
            f"The model's functions call each other until there are {count} nodes; at most"
            f" {_MAX_NODES} are accepted."
        )
    if size > max(_MAX_BYTES, model.ByteSize()):
        raise ModelFileError(
            f"The model's functions are called so often that copies of them take {size} bytes; at"
            f" most {_MAX_BYTES} are accepted.\nGive constants to functions as inputs."
        )
    try:
        return inliner.inline_local_functions(model)
    except Exception as error:
        raise ModelFileError(
            f"The model's own functions cannot be opened: {first_line(error)}"
        ) from error


def opened_node(
    node: onnx.NodeProto, types: Mapping[str, onnx.TypeProto], opset: int
) -> list[onnx.NodeProto] | None:
    """The nodes that ONNX defines a composite operator by, for inputs of these types; None for all
    others.

    Names of values in between start with the name of the first output, so that they are new.
    """
    if node.domain not in STANDARD_DOMAINS:
        return None
    if node.op_type == "CastLike" and node.input[1] in types:
        return [
            helper.make_node(
                "Cast",
                node.input[:1],
                node.output,
                node.name,
                to=types[node.input[1]].tensor_type.elem_type,
            )
        ]
    _with_defaults(node, opset)
    if node.op_type not in OPENED or any(name and name not in types for name in node.input):
        return None
    inputs = [
        helper.make_value_info(name, types[name]) for name in dict.fromkeys(node.input) if name
    ]
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
    left_out = [
        onnx.ValueInfoProto(name="")
    ]  # of no type; without it, onnx looks for the type of inputs that are left out
    graph = helper.make_graph([node], "one", inputs, outputs, value_info=left_out)
    alone = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    try:
        flat = inliner.inline_selected_functions(
            alone, [("", node.op_type)], inline_schema_functions=True
        )
    except Exception as error:
        raise unsupported_use(node, types) from error
    if any(part.op_type == node.op_type for part in flat.graph.node):
        raise UnsupportedModelError(
            describe_unsupported({f"{node.op_type} of opset {opset}": [node_name(node)]})
        )
    outside = {*node.input, *node.output}
    prefix = next(name for name in node.output if name)
    for part in flat.graph.node:
        rename_all(part, lambda name: name if name in outside else f"{prefix}.{name}")
    return list(flat.graph.node)


def _with_defaults(node: onnx.NodeProto, opset: int) -> None:
    """Let a composite operator say what it leaves to the default, which onnx does not find in its
    definition."""
    if node.op_type in _WITH_DEFAULTS and onnx.defs.has(node.op_type, opset, ""):
        given = {attribute.name for attribute in node.attribute}
        schema = onnx.defs.get_schema(node.op_type, opset, "").attributes
        node.attribute.extend(
            a.default_value for a in schema.values() if a.name not in given and a.default_value.type
        )


def _opened_size(model: onnx.ModelProto) -> tuple[int, int]:
    """How many nodes there are after inlining, and their bytes; ModelFileError for functions that
    call themselves."""
    functions = {(function.domain, function.name): function for function in model.functions}
    sizes: dict[tuple[str, str], tuple[int, int]] = {}

    def size(node: onnx.NodeProto, callers: tuple[tuple[str, str], ...]) -> tuple[int, int]:
        key = (node.domain, node.op_type)
        if key not in functions:
            inside = total(
                (inner for attribute in node.attribute for inner in attribute.g.node), callers
            )
            return 1 + inside[0], node.ByteSize() + inside[1]
        if key in callers:
            raise ModelFileError(
                f"The model's function {node.op_type} calls itself (in {node_name(node)})."
            )
        if key not in sizes:
            sizes[key] = total(functions[key].node, (*callers, key))
        return sizes[key]

    def total(
        nodes: Iterable[onnx.NodeProto], callers: tuple[tuple[str, str], ...]
    ) -> tuple[int, int]:
        each = [size(node, callers) for node in nodes]
        return sum(nodes for nodes, _ in each), sum(size for _, size in each)

    return total(model.graph.node, ())
