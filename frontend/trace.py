"""What a model computes on its way: each layer's result, and what follows it up to where a compiler
stops fusing."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
LAYER, AFFINE, ADD, OTHER = "layer", "affine", "add", "other"
CODES, ROUNDED = "codes", "rounded"

_Node = TypeVar("_Node")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A value after a layer. kind: "layer" (its own result), "affine" (batch norm and the like),
    "add" (of two activations), "codes" (the value before as such), "rounded" (what codes stand for)
    or "other"."""

    kind: str
    value: Array


@dataclass(frozen=True, kw_only=True)
class Trace:
    """The outputs of one run, and by layer name the layer's result with what follows it, in
    order."""

    outputs: tuple[Array, ...]
    layers: dict[str, tuple[Stage, ...]]


@dataclass(frozen=True, kw_only=True)
class TracedGraph(Generic[_Node]):
    """What `chain` has to know of a graph: who reads a node's result, its shape, and which kind of
    stage a node is."""

    readers: Callable[[_Node], Sequence[_Node]]
    shape: Callable[[_Node], tuple[int, ...] | None]
    kind: Callable[[_Node], str]


def chain(graph: TracedGraph[_Node], layer: _Node) -> list[_Node]:
    """The layer and what follows it, as long as one node alone reads the result, is no layer
    itself, and keeps the shape."""
    found = [layer]
    while len(readers := graph.readers(found[-1])) == 1:
        following = readers[0]
        if graph.kind(following) == LAYER or graph.shape(following) != graph.shape(layer):
            break
        found.append(following)
    return found


def unique_names(names: Iterable[str]) -> list[str]:
    """Names as `label_layers` counts them: the second use of a layer's weights is `name#2`."""
    taken: dict[str, int] = {}
    unique = []
    for name in names:
        taken[name] = taken.get(name, 0) + 1
        unique.append(name if taken[name] == 1 else f"{name}#{taken[name]}")
    return unique


def collect(chains: Mapping[str, Sequence[tuple[str, Array]]], outputs: Sequence[Array]) -> Trace:
    """A trace of (kind, value) pairs."""
    layers = {
        name: tuple(Stage(kind=kind, value=value) for kind, value in pairs)
        for name, pairs in chains.items()
    }
    return Trace(outputs=tuple(outputs), layers=layers)
