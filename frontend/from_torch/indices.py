"""Constant indices of an exported program: those outside of what they index are refused, as PyTorch
refuses them when it runs.

An exported program has not been run with its constants, and compiled code has nobody to tell: there
an index wraps around.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import fx

from subpc.errors import UnsupportedModelError
from subpc.frontend.from_torch.fold import LEAST_BOUND, constant_nodes, elements, evaluated
from subpc.frontend.from_torch.nodes import layer_name

# (indexed value, axis, index) of an operator's arguments; and whether -1 is the last element.
_Taken = Iterator[tuple[fx.Node, int, Any]]


def _embedding(args: Any) -> _Taken:
    yield args[0], 0, args[1]


def _along(args: Any) -> _Taken:
    yield args[0], int(args[1]), args[2]


def _each(args: Any) -> _Taken:
    for axis, index in enumerate(args[1]):
        yield args[0], axis, index


_OPERATORS = {
    "aten.embedding.default": (_embedding, False),
    "aten.gather.default": (_along, False),
    "aten.index_select.default": (_along, False),
    "aten.index.Tensor": (_each, True),
}


def check_indices(graph: fx.Graph, owned: Mapping[str, torch.Tensor]) -> None:
    """UnsupportedModelError for an index outside of its axis that follows from `owned` tensors (by
    placeholder), or from nothing."""
    users = [node for node in graph.nodes if str(node.target) in _OPERATORS]
    if not users:
        return
    known = {
        node: owned[node.name] for node in graph.find_nodes(op="placeholder") if node.name in owned
    }
    constant = constant_nodes(graph, known)
    for node in users:
        taken, from_the_end = _OPERATORS[str(node.target)]
        for source, axis, index in taken(node.args):
            if index in constant and elements(index) <= LEAST_BOUND:
                value = known[index] if index in known else evaluated(index, known, LEAST_BOUND)
                _check(
                    node, value, tuple(source.meta["val"].shape), axis, from_the_end=from_the_end
                )


def _check(
    node: fx.Node, index: torch.Tensor, shape: tuple[int, ...], axis: int, *, from_the_end: bool
) -> None:
    if index.dtype not in (torch.int64, torch.int32) or not shape:
        return  # truth values pick what they lie on
    extent = int(shape[axis])
    outside = index[(index < (-extent if from_the_end else 0)) | (index >= extent)]
    if outside.numel():
        raise UnsupportedModelError(
            f"Layer {layer_name(node)} ({node.target}) takes index {int(outside[0])} along axis"
            f" {axis % len(shape)}, which has {extent} elements.\nPyTorch raises an error there"
            " when the model runs; correct the index in the model."
        )
