"""Names of constants that say which layer they belong to."""

import re
from collections.abc import Mapping

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


def original_names(graph: onnx.GraphProto, made_of: Mapping[str, str]) -> dict[str, str]:
    """A name for every initializer: its own, or `<node>.weight` where an exporter merely counted.

    made_of: what the file calls the values of those that were computed from its own.
    """
    names = {tensor.name: made_of.get(tensor.name, tensor.name) for tensor in graph.initializer}
    nameless = {name for name, shown in names.items() if _MEANINGLESS.fullmatch(shown)}
    for node in graph.node:
        roles = _ROLES.get(node.op_type, ())
        for index, source in enumerate(node.input):
            if source in nameless:
                role = roles[index] if index < len(roles) else f"constant{index}"
                names[source] = f"{node_name(node)}.{role}"
                nameless.remove(source)
    return names
