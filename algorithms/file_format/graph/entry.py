"""The entry `graph` of a compressed file: a network's nodes and layers as lists and numbers,
checked before anything is built."""

import re
from typing import Any

from subpc.algorithms.file_format.graph.layers import KINDS
from subpc.algorithms.file_format.graph.network import LAYER, TENSOR, Graph, Node
from subpc.algorithms.file_format.graph.operators import OPERATORS
from subpc.algorithms.file_format.graph.options import check_options
from subpc.errors import ModelFileError

_MAX_NODES, _MAX_OUTPUTS = 20_000, 256
# Names that can be attributes of modules, and nothing else wherever PyTorch writes them into code.
_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}(\.[A-Za-z0-9_-]{1,80}){0,15}")


def graph_entry(graph: Graph) -> dict[str, Any]:
    """Plain lists and numbers: {"layers": {name: [kind, options]}, "nodes": [[op, inputs,
    options]], "outputs": [...]}."""
    nodes = [[node.op, list(node.inputs), node.options] for node in graph.nodes]
    layers = {name: [kind, options] for name, (kind, options) in graph.layers.items()}
    return {"layers": layers, "nodes": nodes, "outputs": list(graph.outputs)}


def parse_graph(content: Any, file: str) -> Graph:
    """The inverse of graph_entry for content of an untrusted file; ModelFileError that names the
    node or the layer."""
    if not isinstance(content, dict) or set(content) != {"layers", "nodes", "outputs"}:
        raise ModelFileError(
            f"{file}: the entry 'graph' has to have exactly the keys layers, nodes and outputs."
        )
    layers, nodes, outputs = content["layers"], content["nodes"], content["outputs"]
    if not isinstance(layers, dict) or not isinstance(nodes, list) or not isinstance(outputs, list):
        raise ModelFileError(f"{file}: layers has to be a dictionary, nodes and outputs lists.")
    if len(layers) > _MAX_NODES or len(nodes) > _MAX_NODES or not 1 <= len(outputs) <= _MAX_OUTPUTS:
        raise ModelFileError(
            f"{file}: the graph has {len(nodes)} nodes; at most {_MAX_NODES} are accepted, and an"
            " output."
        )
    parsed = {
        _name(name, file): _layer(entry, f"{file}: the layer {name!r:.60}")
        for name, entry in layers.items()
    }
    steps = tuple(
        _node(entry, index, parsed, f"{file}: node {index}") for index, entry in enumerate(nodes)
    )
    if not all(_is_value(value, len(nodes)) for value in outputs):
        raise ModelFileError(f"{file}: the graph returns values that it does not have.")
    return Graph(nodes=steps, layers=parsed, outputs=tuple(outputs))


def is_name(value: Any) -> bool:
    """Whether layers and tensors of a graph can be called so."""
    return type(value) is str and bool(_NAME.fullmatch(value))


def _name(value: Any, file: str) -> str:
    if not is_name(value):
        raise ModelFileError(
            f"{file}: {value!r:.60} is no name of a layer; letters, digits, _, - and dots between"
            " are accepted."
        )
    return str(value)


def _layer(entry: Any, where: str) -> tuple[str, dict[str, Any]]:
    if (
        not isinstance(entry, list)
        or len(entry) != 2
        or not isinstance(entry[0], str)
        or not isinstance(entry[1], dict)
    ):
        raise ModelFileError(f"{where} has to be a list of its kind and its options.")
    kind, options = entry
    if kind not in KINDS:
        raise ModelFileError(f"{where} is a {kind!r:.40}; accepted: {', '.join(KINDS)}.")
    _options(options, KINDS[kind].options, where)
    return kind, options


def _node(entry: Any, index: int, layers: dict[str, Any], where: str) -> Node:
    if (
        not isinstance(entry, list)
        or len(entry) != 3
        or not isinstance(entry[0], str)
        or not isinstance(entry[2], dict)
    ):
        raise ModelFileError(
            f"{where} has to be a list of its operator, its inputs and its options."
        )
    op, inputs, options = entry
    if not isinstance(inputs, list) or not all(_is_value(value, index) for value in inputs):
        raise ModelFileError(f"{where} reads values that are not computed before it.")
    if op in (LAYER, TENSOR):
        name = options.get("name")
        known = name in layers if op == LAYER and isinstance(name, str) else is_name(name)
        if set(options) != {"name"} or not known or len(inputs) != (1 if op == LAYER else 0):
            raise ModelFileError(f"{where} is not a {op} with a name that the file has.")
        return Node(op=op, inputs=tuple(inputs), options=options)
    if op not in OPERATORS:
        raise ModelFileError(
            f"{where} is the operator {op!r:.40}, which is not known; update subpc."
        )
    low, high = OPERATORS[op].inputs
    if not low <= len(inputs) <= high:
        raise ModelFileError(
            f"{where}, {op}, has {len(inputs)} inputs; {low} to {high} are accepted."
        )
    _options(options, OPERATORS[op].options, f"{where}, {op}")
    return Node(op=op, inputs=tuple(inputs), options=options)


def _options(options: dict[str, Any], checks: Any, where: str) -> None:
    try:
        check_options(options, checks)
    except ValueError as error:
        raise ModelFileError(f"{where}: {error}.") from error


def _is_value(value: Any, before: int) -> bool:
    return type(value) is int and 0 <= value <= before
