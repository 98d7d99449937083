"""What a network's nodes give for images: worked out when asked for, a few images at a time, from
the values that are held."""

import inspect
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

_IN_PLACE = (operator.iadd, operator.isub, operator.imul, operator.itruediv)
# Functions whose results have memory of their own; the list is for speed alone.
_NEW = (operator.add, operator.mul, torch.add, torch.mul, torch.cat, torch.concat)


@dataclass(frozen=True, kw_only=True)
class Route:
    """How values of `targets` follow from held ones: the nodes to run in order, each with those
    whose values go after it."""

    targets: tuple[fx.Node, ...]
    start: tuple[fx.Node, ...]
    steps: tuple[tuple[fx.Node, tuple[fx.Node, ...]], ...]

    @classmethod
    def to(
        cls, targets: Iterable[fx.Node], held: Mapping[fx.Node, Any], place: Mapping[fx.Node, int]
    ) -> "Route":
        """place: of every node in the graph."""
        targets = tuple(targets)
        needed = needed_for(targets, held)
        nodes = sorted(needed - held.keys(), key=place.__getitem__)
        last = {source: node for node in nodes for source in node.all_input_nodes}
        done: dict[fx.Node, list[fx.Node]] = {}
        for source, node in last.items():
            if source not in targets:
                done.setdefault(node, []).append(source)
        start = tuple(node for node in held if node in needed)
        return cls(
            targets=targets,
            start=start,
            steps=tuple((node, tuple(done.get(node, ()))) for node in nodes),
        )


def needed_for(targets: Iterable[fx.Node], held: Mapping[fx.Node, Any]) -> set[fx.Node]:
    """The targets and what they follow from, back to what is held."""
    needed: set[fx.Node] = set()
    waiting = list(targets)
    while waiting:
        node = waiting.pop()
        if node not in needed:
            needed.add(node)
            waiting += [] if node in held else node.all_input_nodes
    return needed


class ImageValues:
    """One network and its images, in this order. held: values (p, ...) of nodes for the first
    images; functions: what runs a node instead of it. written: nodes whose values are written over
    by what follows, see readers_of_results."""

    def __init__(
        self,
        network: nn.Module,
        graph: fx.Graph,
        written: set[fx.Node],
        images: torch.Tensor,
        order: torch.Tensor,
    ) -> None:
        self.run = fx.Interpreter(fx.GraphModule(network, graph))
        self.written, self.images, self.order = written, images, order
        self.held: dict[fx.Node, torch.Tensor] = {}
        self.functions: dict[fx.Node, Callable[[torch.Tensor], torch.Tensor]] = {}
        self.input = next(node for node in graph.nodes if node.op == "placeholder")

    def module(self, node: fx.Node) -> nn.Module | None:
        """What the node calls."""
        module = self.run.fetch_attr(str(node.target)) if node.op == "call_module" else None
        assert module is None or isinstance(module, nn.Module)
        return module

    def parts(self, route: Route, parts: Iterable[slice]) -> Iterator[Any]:
        """The value of the route's one target for these images, part by part."""
        return (self.some(route, part)[route.targets[0]] for part in parts)

    def some(self, route: Route, part: slice) -> dict[fx.Node, Any]:
        """Values of all targets of the route for these images."""
        env = {node: self.held[node][part] for node in route.start}
        env = self.run.env = {
            node: value.clone() if node in self.written else value for node, value in env.items()
        }
        self.run.args_iter = iter(())
        for node, done in route.steps:
            env[node] = self._value(node, part)
            for source in done:
                del env[source]
        self.run.env = {}
        return env

    def _value(self, node: fx.Node, part: slice) -> Any:
        if node is self.input:
            return self.images[self.order[part]]
        if node in self.functions:
            return self.functions[node](self.run.env[node.all_input_nodes[0]])
        return self.run.run_node(node)


def changes_input(node: fx.Node, module: nn.Module | None) -> bool:
    """Whether the node writes its result over its first input."""
    if module is not None:
        return bool(getattr(module, "inplace", False))
    name = node.target if node.op == "call_method" else getattr(node.target, "__name__", "")
    written = isinstance(name, str) and name.endswith("_") and not name.endswith("__")
    return node.target in _IN_PLACE or written or _asked_for(node, "inplace")


def _asked_for(node: fx.Node, name: str) -> bool:
    """Whether a function is called with this argument true, by name or by place."""
    try:
        arguments = inspect.signature(node.target).bind(*node.args, **node.kwargs).arguments  # type: ignore[arg-type]
    except (
        TypeError,
        ValueError,
    ):  # a method's name, or a function that does not tell what it takes
        arguments = dict(node.kwargs)
    return bool(arguments.get(name, False))


def readers_of_results(
    graph: fx.Graph, modules: Mapping[str, nn.Module]
) -> tuple[fx.Graph, set[fx.Node]]:
    """The graph, as a copy in which those who read a value after it is written over read what it is
    written over with; and the nodes whose values may be written over."""
    result, written = fx.Graph(), set[fx.Node]()
    result.output(result.graph_copy(graph, {}))
    place = {node: i for i, node in enumerate(result.nodes)}
    for node in result.nodes:
        module = modules.get(str(node.target)) if node.op == "call_module" else None
        if node.all_input_nodes and changes_input(node, module):
            source = node.all_input_nodes[0]
            source.replace_all_uses_with(node, lambda user, here=place[node]: place[user] > here)
            written |= _sharing_memory(source, modules)
    return result, written


def _sharing_memory(node: fx.Node, modules: Mapping[str, nn.Module]) -> set[fx.Node]:
    """The node and those before it of which its value may be a view."""
    found, waiting = set[fx.Node](), [node]
    while waiting:
        found.add(node := waiting.pop())
        module = modules.get(str(node.target)) if node.op == "call_module" else None
        if node.target not in _NEW and not isinstance(
            module, nn.Conv2d | nn.Linear | nn.BatchNorm2d
        ):
            waiting += [source for source in node.all_input_nodes if source not in found]
    return found
