"""Collects layers, operators and tensors of a network that comes as a file of another kind, under
the names its author gave."""

import re
from collections.abc import Sequence
from typing import Any

import torch

from subpc.algorithms.file_format.graph.entry import graph_entry, parse_graph
from subpc.algorithms.file_format.graph.network import LAYER, TENSOR, Graph, GraphNetwork, Node
from subpc.errors import UnsupportedModelError
from subpc.frontend.messages import describe_unsupported

_OTHER = re.compile(r"[^A-Za-z0-9_.-]+")
_LONGEST = 80


class GraphBuilder:
    """Values are numbers: 0 is the network's input, what `add` and `layer` return are their
    results."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.layers: dict[str, tuple[str, dict[str, Any]]] = {}
        self.tensors: dict[str, torch.Tensor] = {}
        self._weights: dict[tuple[Any, ...], str] = {}
        self._placed: dict[str, int] = {}

    def add(self, op: str, *inputs: int, **options: Any) -> int:
        """The result of an operator."""
        self.nodes.append(Node(op=op, inputs=inputs, options=options))
        return len(self.nodes)

    def layer(
        self, name: str, kind: str, tensors: dict[str, torch.Tensor], x: int, **options: Any
    ) -> int:
        """The result of a layer; the same layer again where the same tensors are used in the same
        way.

        tensors: weight and bias as PyTorch's layer of this kind has them; x: its input's number.
        """
        key = (
            kind,
            repr(options),
            *((k, v.data_ptr(), tuple(v.shape)) for k, v in tensors.items()),
        )
        if key not in self._weights:
            name = self._free(name)
            self._weights[key] = name
            self.layers[name] = (kind, options)
            self.tensors |= {
                f"{name}.{part}": value.detach().float().contiguous()
                for part, value in tensors.items()
            }
        return self.add(LAYER, x, name=self._weights[key])

    def tensor(self, name: str, value: torch.Tensor) -> int:
        """A tensor that is no layer's, as a value of its own type.

        value: of any shape, which stays. ValueError where float32, in which files hold tensors,
        has not its numbers.
        """
        if name not in self._placed:
            kept = value.detach().float().contiguous()
            if not value.is_floating_point() and not torch.equal(kept.to(value.dtype), value):
                raise ValueError("a constant with whole numbers above 2^24")
            free = self._free(name)
            self.tensors[free] = kept
            placed = self.add(TENSOR, name=free)
            if not value.is_floating_point():
                placed = self.add("cast", placed, to=type_name(value.dtype))
            self._placed[name] = placed
        return self._placed[name]

    def network(self, outputs: Sequence[int]) -> GraphNetwork:
        """The network; UnsupportedModelError where it uses an operator in a way that files cannot
        hold."""
        graph = Graph(nodes=tuple(self.nodes), layers=self.layers, outputs=tuple(outputs))
        try:
            return GraphNetwork(parse_graph(graph_entry(graph), "the network"), self.tensors)
        except Exception as error:
            raise UnsupportedModelError(
                f"The network cannot be kept as plain layers: {str(error)[:200]}"
            ) from error

    def _free(self, name: str) -> str:
        """`name` with nothing but letters, digits, _, - and dots in it, that no layer and no tensor
        has yet."""
        parts = [
            part[:_LONGEST]
            for part in _OTHER.sub("_", name.strip("/")).split(".")
            if part.strip("_")
        ]
        clean = (
            ".".join(f"{part}_" if hasattr(GraphNetwork, part) else part for part in parts[-16:])
            or "layer"
        )
        taken = {*self.layers, *self.tensors}
        free, count = clean, 1
        while free in taken or any(
            other.startswith(f"{free}.") and other in self.tensors for other in taken
        ):
            count += 1
            free = f"{clean}_{count}"
        return free


def type_name(dtype: torch.dtype) -> str:
    """What files call an element type; all floats are float32."""
    return "float32" if dtype.is_floating_point else str(dtype).removeprefix("torch.")


def refuse_all(missing: dict[str, list[str]]) -> None:
    """UnsupportedModelError that names every operator of {operator: layers}, where there is one."""
    if missing:
        text = describe_unsupported(missing).replace("before compiling", "before compressing")
        raise UnsupportedModelError(text)
