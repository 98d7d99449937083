"""An exported program as a network of plain layers: every aten operator becomes a layer or an
operator that files can hold."""

import operator
from typing import Any

import torch
from torch import fx

from subpc.algorithms.file_format.graph.network import GraphNetwork
from subpc.errors import UnsupportedModelError
from subpc.frontend.from_torch.network import ExportedNetwork
from subpc.frontend.from_torch.nodes import layer_name
from subpc.frontend.from_torch.plain_graph.converters import CONVERTERS
from subpc.frontend.from_torch.plain_graph.reader import Made, ProgramReader
from subpc.frontend.messages import first_line
from subpc.frontend.plain_graph.builder import refuse_all
from subpc.frontend.plain_graph.reader import Weight

# No network computes a larger tensor from its weights alone (1 GiB); a hostile program can ask for
# any size.
_MAX_CONSTANT = 1 << 28


def network_from_program(network: ExportedNetwork) -> GraphNetwork:
    """The network in plain layers, for batches of any size.

    Raises UnsupportedModelError that names all operators, with their layers, that a file of ours
    cannot hold.
    """
    simple = network.decomposed()
    if any(spec.kind.name != "USER_OUTPUT" for spec in simple.program.graph_signature.output_specs):
        raise UnsupportedModelError(
            "The program changes its own weights or inputs; export it in eval mode."
        )
    reader = ProgramReader(simple)
    missing: dict[str, list[str]] = {}
    for node in simple.nodes:
        if node.op == "call_function":
            reader.env[node] = _converted(node, reader, missing)
    refuse_all(missing)
    (output,) = simple.program.graph.find_nodes(op="output")
    return reader.builder.network(
        [reader.value(node) for node in output.args[0] if isinstance(node, fx.Node)]
    )


def _converted(
    node: fx.Node, reader: ProgramReader, missing: dict[str, list[str]]
) -> Made | Weight | None:
    """What the node gives; None, with the operator noted, where there is no way."""
    if any(reader.env.get(source) is None for source in node.all_input_nodes):
        return None  # behind an operator that is missing
    name = str(node.target)
    try:
        if node.target is operator.getitem:
            several: Any = reader.env[node.args[0]]  # type: ignore[index]
            result: Any = several[node.args[1]]
        elif all(reader.weight(source) is not None for source in node.all_input_nodes):
            result = _constant(node, reader)
        else:
            convert = CONVERTERS.get(name)
            result = convert(node, reader) if convert is not None else None
    except Exception as error:
        name, result = f"{name}: {first_line(error, 80)}", None
    if result is None:
        missing.setdefault(name, []).append(layer_name(node))
    return result  # type: ignore[no-any-return]


def _constant(node: fx.Node, reader: ProgramReader) -> Weight | None:
    """What follows from weights alone, computed."""
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor) or value.numel() > _MAX_CONSTANT:
        return None
    values: Any = {source: reader.weight(source) for source in node.all_input_nodes}
    args, kwargs = fx.map_arg((node.args, node.kwargs), lambda arg: values[arg].value)
    with torch.no_grad():
        return Weight(node.name, node.target(*args, **kwargs))  # type: ignore[operator]
