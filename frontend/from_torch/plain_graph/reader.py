"""An exported network that is gone through node by node: what its converters to a plain graph
ask."""

from typing import Any

from torch import fx

from subpc.errors import UnsupportedModelError
from subpc.frontend.from_torch.network import ExportedNetwork
from subpc.frontend.plain_graph.builder import GraphBuilder
from subpc.frontend.plain_graph.reader import Weight

# What a converter makes of a node: a value of the builder, or one for each result.
Made = int | list[int]


class ProgramReader:
    """A GraphReader whose values are nodes. env: what has been made of each node; a Weight for what
    follows from weights alone."""

    def __init__(self, network: ExportedNetwork) -> None:
        """UnsupportedModelError for a network of several inputs."""
        self.network, self.builder = network, GraphBuilder()
        users = network.program.graph_signature.user_inputs
        if len(users) != 1:
            raise UnsupportedModelError(
                f"The network has {len(users)} inputs; networks with one tensor as input can be"
                " compressed."
            )
        self.env: dict[fx.Node, Made | Weight | None] = {}
        for node in network.program.graph.find_nodes(op="placeholder"):
            self.env[node] = 0 if node.name == users[0] else network.weights.get(node.name)

    def value(self, place: Any) -> int:
        """The value of a node; a weight is placed as one."""
        found = self.env[place]
        if isinstance(found, Weight):
            return self.builder.tensor(found.name, found.value)
        if not isinstance(found, int):
            raise ValueError("it reads several values at once")
        return found

    def weight(self, place: Any) -> Weight | None:
        """The weight that a node stands for."""
        found = self.env[place]
        return found if isinstance(found, Weight) else None

    def number(self, place: Any) -> float | None:
        """A number, or the one in a weight without axes."""
        if not isinstance(place, fx.Node):
            return float(place)
        weight = self.weight(place)
        return float(weight.value) if weight is not None and weight.value.dim() == 0 else None

    def shape(self, place: Any) -> tuple[int, ...]:
        """The shape of a node's value."""
        return shape_of(place)


def rank_of(node: Any) -> int:
    """How many dimensions a node's value has."""
    return len(shape_of(node))


def shape_of(node: Any) -> tuple[int, ...]:
    """The shape of a node's value."""
    return tuple(int(n) for n in node.meta["val"].shape)
