"""Nodes in the order in which they can be computed: some converters write them in another one."""

import heapq

import onnx

from subpc.errors import ModelFileError
from subpc.frontend.from_onnx.graph import node_name
from subpc.frontend.messages import printable

_MAX_NAMED = 3


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Bring the nodes of `graph` into order, and leave those alone that are; ModelFileError where
    no order exists."""
    made = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    given = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    given |= {tensor.values.name for tensor in graph.sparse_initializer}
    waiting: list[set[int]] = []
    for node in graph.node:
        names = {name for name in node.input if name and name not in given}
        unknown = sorted(name for name in names if name not in made)
        if unknown:
            raise ModelFileError(
                f"Node {node_name(node)} ({node.op_type}) reads {printable(unknown[0])!r}, which"
                " nothing makes."
            )
        waiting.append({made[name] for name in names})
    if all(max(needed, default=-1) < index for index, needed in enumerate(waiting)):
        return
    nodes = [graph.node[index] for index in _order(graph, waiting)]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def _order(graph: onnx.GraphProto, waiting: list[set[int]]) -> list[int]:
    """Each node as early as it can be, otherwise as in the file."""
    readers: dict[int, list[int]] = {}
    for index, needed in enumerate(waiting):
        for source in needed:
            readers.setdefault(source, []).append(index)
    left = [len(needed) for needed in waiting]
    ready = [index for index, count in enumerate(left) if count == 0]
    order = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for reader in readers.get(index, ()):
            left[reader] -= 1
            if left[reader] == 0:
                heapq.heappush(ready, reader)
    if len(order) < len(waiting):
        stuck = [node_name(graph.node[index]) for index, count in enumerate(left) if count]
        named = ", ".join(stuck[:_MAX_NAMED]) + (
            f" and {len(stuck) - _MAX_NAMED} more" if len(stuck) > _MAX_NAMED else ""
        )
        raise ModelFileError(f"The nodes wait for each other in a circle: {named}.")
    return order
