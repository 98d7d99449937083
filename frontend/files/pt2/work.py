"""How much an exported program computes before any tensor is there: its arithmetic on sizes, which
PyTorch does with whole numbers."""

from collections.abc import Iterator
from typing import Any

from subpc.frontend.files.pt2.nested_json import Unsafe

_MAX_BITS, _MAX_EXPONENT, _SIZE_BITS = 4_096, 16, 64


def check_work(graph: Any) -> None:
    """Unsafe where numbers would grow without bound, as they do where a product is multiplied by
    itself again and again."""
    bits: dict[str, int] = {}
    for node in _nodes(graph):
        target = str(node.get("target", ""))
        if not target.startswith("_operator."):
            continue
        parts = list(_operands(node.get("inputs"), bits))
        if target == "_operator.mul":
            size = sum(parts)
        elif target == "_operator.pow":
            size = parts[0] * _exponent(node["inputs"]) if parts else 0
        else:
            size = max(parts, default=0) + 1
        if size > _MAX_BITS:
            raise Unsafe("its arithmetic on sizes makes numbers of thousands of digits")
        bits |= dict.fromkeys(_results(node.get("outputs")), size)


def _nodes(graph: Any) -> Iterator[dict[str, Any]]:
    """The nodes of a graph and of those within it, in order."""
    for node in graph.get("nodes", ()) if isinstance(graph, dict) else ():
        if not isinstance(node, dict):
            raise Unsafe("its nodes are no JSON objects")
        for value in node.get("inputs") or ():
            argument = value.get("arg") if isinstance(value, dict) else None
            if isinstance(argument, dict) and isinstance(argument.get("as_graph"), dict):
                yield from _nodes(argument["as_graph"].get("graph"))
        yield node


def _operands(inputs: Any, bits: dict[str, int]) -> Iterator[int]:
    for value in inputs if isinstance(inputs, list) else ():
        argument = value.get("arg") if isinstance(value, dict) else None
        for kind, entry in argument.items() if isinstance(argument, dict) else ():
            name = entry.get("as_name") if isinstance(entry, dict) else None
            yield (
                bits.get(str(name), _SIZE_BITS)
                if name is not None or kind != "as_int"
                else abs(int(entry)).bit_length()
            )


def _exponent(inputs: Any) -> int:
    argument = (
        inputs[1].get("arg")
        if isinstance(inputs, list) and len(inputs) == 2 and isinstance(inputs[1], dict)
        else None
    )
    exponent = argument.get("as_int") if isinstance(argument, dict) else None
    if not isinstance(exponent, int) or abs(exponent) > _MAX_EXPONENT:
        raise Unsafe("its arithmetic on sizes has powers that are no small numbers")
    return max(1, abs(exponent))


def _results(outputs: Any) -> Iterator[str]:
    for value in outputs if isinstance(outputs, list) else ():
        for entry in value.values() if isinstance(value, dict) else ():
            if isinstance(entry, dict) and isinstance(entry.get("as_name"), str):
                yield entry["as_name"]
