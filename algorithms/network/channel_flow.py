"""The channels of every value in a traced network, numbered: those that are computed from each
other have the same number."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import fx, nn

from subpc.algorithms.network.channel_steps import (
    ACTIVATION,
    JOIN,
    KEEPS,
    SUM,
    axis_of_size,
    is_shape,
    kind_of,
    rank_behind,
)
from subpc.algorithms.network.channels import is_depthwise
from subpc.algorithms.network.pairing import called_module, count_uses


@dataclass(frozen=True, kw_only=True)
class Value:
    """Numbers of a value's channels, which are its axis 1, and how many axes it has."""

    numbers: list[int]
    rank: int


class Flow:
    """What is found in the graph.

    inputs, outputs: numbers of each layer's channels; writers, readers: convolutions and linear
    layers whose outputs are new channels, and whose inputs are taken together, in the order of the
    graph: depthwise convolutions are neither. grouped: those of them that have several groups, and
    how many. summed: numbers that sums were made of; bent: numbers that activations were put to.
    frozen: numbers that have to stay, with the reason.
    """

    def __init__(self, graph: fx.Graph, modules: Mapping[str, nn.Module]) -> None:
        self.modules, self.uses = modules, count_uses(graph, modules)
        self.parent: list[int] = []
        self.values: dict[fx.Node, Value] = {}
        self.inputs: dict[str, list[int]] = {}
        self.outputs: dict[str, list[int]] = {}
        self.nodes: dict[str, fx.Node] = {}
        self.writers: list[str] = []
        self.readers: list[str] = []
        self.grouped: dict[str, int] = {}
        self.summed: set[int] = set()
        self.bent: set[int] = set()
        self.shapes: dict[fx.Node, fx.Node] = {}
        self.sizes: dict[fx.Node, tuple[fx.Node, int]] = {}
        self.frozen: dict[int, str] = {}
        self._before: dict[fx.Node, set[fx.Node]] = {}

    def find(self, number: int) -> int:
        """The one that stands for all that this number is united with."""
        while self.parent[number] != number:
            self.parent[number] = self.parent[self.parent[number]]
            number = self.parent[number]
        return number

    def found(self, numbers: Iterable[int]) -> list[int]:
        """find for each."""
        return [self.find(number) for number in numbers]

    def follows(self, layer: str, other: str) -> bool:
        """Whether what `layer` gives depends on what `other` gives."""
        return self.nodes[other] in self._ancestors(self.nodes[layer])

    def _ancestors(self, node: fx.Node) -> set[fx.Node]:
        if node not in self._before:
            found, waiting = set[fx.Node](), list(node.all_input_nodes)
            while waiting:
                if (source := waiting.pop()) not in found:
                    found.add(source)
                    waiting += source.all_input_nodes
            self._before[node] = found
        return self._before[node]

    def new(self, count: int) -> list[int]:
        """So many numbers that there were not."""
        numbers = list(range(len(self.parent), len(self.parent) + count))
        self.parent += numbers
        return numbers

    def unite(self, one: list[int], other: list[int]) -> None:
        """Each with the one in its place: the first stays."""
        for a, b in zip(self.found(one), self.found(other), strict=True):
            self.parent[max(a, b)] = min(a, b)

    def freeze(self, numbers: Iterable[int], reason: str) -> None:
        """They have to stay."""
        for number in numbers:
            self.frozen.setdefault(number, reason)

    def step(self, node: fx.Node) -> None:
        """Number the channels that the node gives, where it is known what it does."""
        if is_shape(node):
            self.shapes[node] = node.all_input_nodes[0]
            return
        size = axis_of_size(node, self.shapes)
        if size is not None:
            self.sizes[node] = size
            return
        module = called_module(node, self.modules)
        if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
            value = self._layer(node, module)
        else:
            value = self._other(node, module)
        if value is not None:
            self.values[node] = value

    def _layer(self, node: fx.Node, module: nn.Conv2d | nn.Linear | nn.BatchNorm2d) -> Value | None:
        name, source = str(node.target), self.values.get(node.all_input_nodes[0])
        own = module.num_features if isinstance(module, nn.BatchNorm2d) else _inputs_of(module)
        read = self._read(node, module, own, source)
        self.nodes[name] = node
        if name in self.outputs:  # called before: its channels stay, all the same
            return Value(numbers=self.outputs[name], rank=2 if isinstance(module, nn.Linear) else 4)
        self.inputs[name] = read
        if isinstance(module, nn.BatchNorm2d):
            written = read
        elif isinstance(module, nn.Conv2d) and is_depthwise(module):
            each = module.out_channels // module.groups
            written = [number for number in read for _ in range(each)]
        else:
            self.readers.append(name)
            self.writers.append(name)
            written = self.new(len(module.weight))
            if isinstance(module, nn.Conv2d) and module.groups > 1:
                self.grouped[name] = module.groups
        self.outputs[name] = written
        if self._used_again(module):
            self.freeze(written, f"{name}, or its weight, is used more than once")
        return Value(numbers=written, rank=2 if isinstance(module, nn.Linear) else 4)

    def _read(self, node: fx.Node, module: nn.Module, own: int, source: Value | None) -> list[int]:
        """Numbers of the channels that a layer with `own` of them reads, repeated where several
        columns of a linear layer are of one channel; new ones that stay where that is not known."""
        rank = 2 if isinstance(module, nn.Linear) else 4
        if source is not None:
            each = own // len(source.numbers)
            fits = source.rank == rank and each * len(source.numbers) == own
            if fits and (each == 1 or isinstance(module, nn.Linear)):
                if self._used_again(module):
                    self.freeze(source.numbers, f"{node.target}, which reads it, is used again")
                return [number for number in source.numbers for _ in range(each)]
            self.freeze(source.numbers, f"{node.target} reads it in another order")
        numbers = self.new(own)
        self.freeze(numbers, "the network's input" if source is None else "read in another order")
        return numbers

    def _used_again(self, module: nn.Module) -> bool:
        return self.uses[id(module)] > 1 or self.uses[id(module.weight)] > 1

    def _other(self, node: fx.Node, module: nn.Module | None) -> Value | None:
        known = [source for source in node.all_input_nodes if source in self.values]
        if not known:
            return None
        kind, first = kind_of(node, module), self.values[known[0]]
        if kind == JOIN:
            value = self._join(node)
        elif kind in (ACTIVATION, KEEPS) or (kind is not None and len(node.all_input_nodes) == 1):
            value = first if known[0] is node.all_input_nodes[0] else None
            self.bent |= set(first.numbers) if kind == ACTIVATION else set()
        elif kind is not None:
            value = self._combined(node, kind)
        else:
            rank = rank_behind(node, module, first.rank, self._sizes_for(node, first))
            value = None if rank is None else Value(numbers=first.numbers, rank=rank)
        if value is None:
            for source in known:
                self.freeze(self.values[source].numbers, _reads(node))
        return value

    def _sizes_for(self, node: fx.Node, value: Value) -> dict[fx.Node, int]:
        """The extents that the node is given, and along which axes of its input.

        Where the number of channels is read from another value with as many, as in the gate of
        squeeze-and-excite, they have to stay as many: their channels go together.
        """
        found = {}
        for size in node.all_input_nodes:
            source, axis = self.sizes.get(size, (None, -1))
            other = self.values.get(source) if source is not None else None
            if axis == 1 and other is not None and len(other.numbers) == len(value.numbers):
                self.unite(value.numbers, other.numbers)
                found[size] = axis
            elif axis == 0:
                found[size] = axis
        return found

    def _join(self, node: fx.Node) -> Value | None:
        values = [self.values.get(source) for source in _joined(node)]
        if not values or any(value is None for value in values):
            return None
        there = [value for value in values if value is not None]
        if len({value.rank for value in there}) > 1:
            return None
        return Value(numbers=[n for value in there for n in value.numbers], rank=there[0].rank)

    def _combined(self, node: fx.Node, kind: str) -> Value | None:
        """The sum or product of several values; one with a single channel is spread over all."""
        values = [self.values.get(s) for s in node.all_input_nodes if not self._is_scalar(s)]
        there = [value for value in values if value is not None]
        if len(there) < len(values) or len({value.rank for value in there}) > 1:
            return None
        most = max(there, key=lambda value: len(value.numbers))
        for value in there:
            if len(value.numbers) == len(most.numbers):
                self.unite(most.numbers, value.numbers)
            elif len(value.numbers) == 1:
                self.freeze(value.numbers, f"{node.name} spreads it over all channels")
            else:
                return None
        if kind == SUM and len(there) > 1:
            self.summed |= set(most.numbers)
        return most

    def _is_scalar(self, node: fx.Node) -> bool:
        if node.op != "get_attr":
            return False
        holder, _, name = str(node.target).rpartition(".")
        value = getattr(self.modules[holder], name, None)
        return isinstance(value, torch.Tensor) and value.numel() == 1


def follow_channels(graph: fx.Graph, modules: Mapping[str, nn.Module]) -> Flow:
    """Number the channels of all values; see coupling.find_coupling."""
    flow = Flow(graph, modules)
    for node in graph.nodes:
        flow.step(node)
    flow.frozen = {flow.find(number): why for number, why in reversed(flow.frozen.items())}
    return flow


def _inputs_of(layer: nn.Conv2d | nn.Linear) -> int:
    return layer.in_channels if isinstance(layer, nn.Conv2d) else layer.in_features


def _joined(node: fx.Node) -> list[fx.Node]:
    given = node.args[0] if node.args else node.kwargs.get("tensors", ())
    return [x for x in given if isinstance(x, fx.Node)] if isinstance(given, tuple | list) else []


def _reads(node: fx.Node) -> str:
    if node.op == "output":
        return "it is what the network gives"
    return f"{node.target if node.op == 'call_module' else node.name} reads it, not a convolution"
