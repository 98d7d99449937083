"""Branches (`If`) whose condition turns out to be a constant: the one that is taken, as plain
nodes."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper


def taken_branch(
    node: onnx.NodeProto, constants: dict[str, np.ndarray]
) -> list[onnx.NodeProto] | None:
    """The nodes that give the outputs of an `If`, whose weights are added to `constants`; None for
    all other nodes.

    constants: of any shape, by the value's name; the condition has one element.
    """
    if node.op_type != "If" or node.input[0] not in constants:
        return None
    name = "then_branch" if constants[node.input[0]].reshape(-1)[0] else "else_branch"
    branch = next(attribute.g for attribute in node.attribute if attribute.name == name)
    constants |= {tensor.name: numpy_helper.to_array(tensor) for tensor in branch.initializer}
    results = [
        helper.make_node("Identity", [inner.name], [outer])
        for inner, outer in zip(branch.output, node.output, strict=False)
        if outer
    ]
    return [*branch.node, *results]


def names_read(node: onnx.NodeProto) -> Iterator[str]:
    """The values that a node reads, those that its branches take from around them included."""
    yield from node.input
    for branch in _branches(node):
        yield from (value.name for value in branch.output)
        for inner in branch.node:
            yield from names_read(inner)


def rename_read(node: onnx.NodeProto, new_names: Mapping[str, str]) -> None:
    """Let a node and its branches read other values in place of those that are gone."""
    _rename(node.input, lambda name: new_names.get(name, name))
    for branch in _branches(node):
        for value in branch.output:
            value.name = new_names.get(value.name, value.name)
        for inner in branch.node:
            rename_read(inner, new_names)


def rename_all(node: onnx.NodeProto, new_name: Callable[[str], str]) -> None:
    """Give other names to all that a node and its branches read and compute."""
    _rename(node.input, new_name)
    _rename(node.output, new_name)
    for branch in _branches(node):
        for value in (*branch.initializer, *branch.output):
            value.name = new_name(value.name)
        for inner in branch.node:
            rename_all(inner, new_name)


def _rename(names: Any, new_name: Callable[[str], str]) -> None:
    for index, name in enumerate(names):
        names[index] = new_name(name) if name else name


def _branches(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    return [attribute.g for attribute in node.attribute if attribute.HasField("g")]
