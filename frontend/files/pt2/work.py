"""How much an exported program computes before any tensor is there: its arithmetic on sizes, which
PyTorch does with whole numbers."""

from collections.abc import Iterator
from typing import Any

from subpc.frontend.files.pt2.unsafe import Unsafe

_MAX_BITS, _MAX_EXPONENT, _SIZE_BITS = 4_096, 16, 64


def check_work(graph: dict[str, Any]) -> None:
    """Unsafe where numbers would grow without bound, as they do where a product is multiplied by
    itself again and again.

    graph: as PyTorch's schema has it (schema_types.py).
    """
    bits: dict[str, int] = {}
    for node in _nodes(graph):
        target = node["target"]
        if not target.startswith("_operator."):
            continue
        parts = list(_operands(node["inputs"], bits))
        if target == "_operator.mul":
            size = sum(parts)
        elif target == "_operator.pow":
            size = parts[0] * _exponent(node["inputs"]) if parts else 0
        else:
            size = max(parts, default=0) + 1
        if size > _MAX_BITS:
            raise Unsafe("its arithmetic on sizes makes numbers of thousands of digits")
        bits |= dict.fromkeys(_results(node["outputs"]), size)


def _nodes(graph: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The nodes of a graph and of those within it, in order."""
    for node in graph["nodes"]:
        for value in node["inputs"]:
            if "as_graph" in value["arg"]:
                yield from _nodes(value["arg"]["as_graph"]["graph"])
        yield node


def _operands(inputs: list[dict[str, Any]], bits: dict[str, int]) -> Iterator[int]:
    for value in inputs:
        for kind, entry in value["arg"].items():
            name = entry.get("as_name") if isinstance(entry, dict) else None
            yield (
                bits.get(str(name), _SIZE_BITS)
                if name is not None or kind != "as_int"
                else abs(entry).bit_length()
            )


def _exponent(inputs: list[dict[str, Any]]) -> int:
    exponent: int | None = inputs[1]["arg"].get("as_int") if len(inputs) == 2 else None
    if exponent is None or abs(exponent) > _MAX_EXPONENT:
        raise Unsafe("its arithmetic on sizes has powers that are no small numbers")
    return max(1, abs(exponent))


def _results(outputs: list[dict[str, Any]]) -> Iterator[str]:
    for value in outputs:
        for entry in value.values():
            if isinstance(entry, dict) and "as_name" in entry:
                yield entry["as_name"]
