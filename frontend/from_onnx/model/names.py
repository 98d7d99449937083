"""Names of constants that say which layer they belong to."""

import re

import onnx

from subpc.frontend.from_onnx.graph import node_name

# What the inputs of the operators with weights are for, where the weights have no names of their
# own.
_ROLES = {
    "Conv": ("input", "weight", "bias"),
    "ConvTranspose": ("input", "weight", "bias"),
    "Gemm": ("input", "weight", "bias"),
    "BatchNormalization": ("input", "weight", "bias", "running_mean", "running_var"),
}
# Names that exporters count up.
_MEANINGLESS = re.compile(r"(onnx::.*|\d+|.*Constant(_\d+)?(_output_0)?)")


def original_names(graph: onnx.GraphProto) -> dict[str, str]:
    """A name for every initializer: its own, or `<node>.weight` where an exporter merely
    counted."""
    names = {tensor.name: tensor.name for tensor in graph.initializer}
    for node in graph.node:
        roles = _ROLES.get(node.op_type, ())
        for index, source in enumerate(node.input):
            if source in names and names[source] == source and _MEANINGLESS.fullmatch(source):
                role = roles[index] if index < len(roles) else f"constant{index}"
                names[source] = f"{node_name(node)}.{role}"
    return names
