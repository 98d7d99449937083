"""A network that is built from plain data: a module with the layers' original names, whose forward
follows a list of nodes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from subpc.algorithms.file_format.graph.layers import KINDS
from subpc.algorithms.file_format.graph.operators import OPERATORS
from subpc.errors import ConfigError, ModelFileError
from subpc.text import first_line

LAYER, TENSOR = "layer", "tensor"
# What is alive at once never takes more (16 GiB of floats); a hostile list of nodes could ask for
# any size.
_MAX_ELEMENTS = 1 << 32


@dataclass(frozen=True, kw_only=True)
class Node:
    """One step. op: an operator, `layer` or `tensor`, which name theirs in options; inputs: 0 is
    the network's, i + 1 the i-th node's."""

    op: str
    inputs: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Graph:
    """Nodes in order, {name: (kind, options)} of the layers, and the values that are returned: one
    alone, several as a tuple."""

    nodes: tuple[Node, ...]
    layers: dict[str, tuple[str, dict[str, Any]]]
    outputs: tuple[int, ...]


class GraphNetwork(nn.Module):
    """The network of `graph` with the weights in `state` (float32), in eval mode. subpc_graph: the
    graph.

    Raises ValueError that names the layer where the two do not fit. The graph has to be a checked
    one: see parse_graph.
    """

    def __init__(self, graph: Graph, state: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        self.subpc_graph = graph
        for name, (kind, options) in graph.layers.items():
            own = {
                key: state[f"{name}.{key}"]
                for key in ("weight", "bias", "running_mean", "running_var")
                if f"{name}.{key}" in state
            }
            try:
                _place(self, name, KINDS[kind].build(own, **options))
            except (ValueError, KeyError, RuntimeError) as error:
                raise ValueError(f"layer {name}: {error}") from None
        for name in (node.options["name"] for node in graph.nodes if node.op == TENSOR):
            if name not in state:
                raise ValueError(f"the tensor {name} is missing")
            _place_tensor(self, name, state[name])
        self._load(state)
        self.subpc_last = _last_uses(graph)
        self.subpc_checked: set[tuple[int, ...]] = set()
        self.requires_grad_(False)
        self.eval()

    def _load(self, state: Mapping[str, torch.Tensor]) -> None:
        own = self.state_dict()
        missing = [
            key for key in own if key not in state and not key.endswith("num_batches_tracked")
        ]
        unexpected = [key for key in state if key not in own]
        if missing or unexpected:
            first = (missing + unexpected)[0]
            raise ValueError(
                f"{len(missing)} tensors are missing, {len(unexpected)} belong to no layer"
                f" ({first:.60}, ...)"
            )
        for key, value in own.items():
            if key in state and state[key].shape != value.shape:
                raise ValueError(
                    f"{key} is {tuple(state[key].shape)} instead of {tuple(value.shape)}"
                )
        counters = {key: torch.tensor(0) for key in own if key not in state}
        self.load_state_dict({**state, **counters}, assign=True)

    def take_groups(self) -> None:
        """Have the graph tell the groups of the convolutions as they are now, after channels were
        removed from depthwise ones."""
        layers = {}
        for name, (kind, options) in self.subpc_graph.layers.items():
            module = self.get_submodule(name)
            own = {"groups": module.groups} if isinstance(module, nn.Conv2d) else {}
            layers[name] = (kind, {**options, **own})
        self.subpc_graph = replace(self.subpc_graph, layers=layers)
        self.subpc_checked = set()

    def forward(self, x: torch.Tensor) -> Any:
        """x: the network's one input."""
        tracing = torch._C._is_tracing()  # where sizes are no numbers
        if (
            type(x) is torch.Tensor
            and x.device.type == "cpu"
            and not tracing
            and tuple(x.shape) not in self.subpc_checked
        ):
            self._check_sizes(tuple(x.shape))
        return self._run(x)

    def _run(self, x: torch.Tensor) -> Any:
        values: list[Any] = [x]
        for index, node in enumerate(self.subpc_graph.nodes):
            values.append(self._step(node, [values[i] for i in node.inputs]))
            for done in self.subpc_last.get(index, ()):
                values[done] = None
        results = tuple(values[i] for i in self.subpc_graph.outputs)
        return results[0] if len(results) == 1 else results

    def _step(self, node: Node, inputs: list[Any]) -> Any:
        if node.op == LAYER:
            return self.get_submodule(node.options["name"])(*inputs)
        if node.op == TENSOR:
            name: str = node.options["name"]
            parent, _, last = name.rpartition(".")
            return getattr(self.get_submodule(parent), last)
        return OPERATORS[node.op].function(*inputs, **node.options)

    def _check_sizes(self, shape: tuple[int, ...]) -> None:
        """Follow the shapes without computing, so that no list of nodes fills the memory;
        ConfigError where they do not fit."""
        shapes = _Shapes(self)
        try:
            shapes.run(torch.empty(shape, device="meta"))
        except (RuntimeError, IndexError, ValueError, TypeError) as error:
            raise ConfigError(
                f"The network does not take input of shape {','.join(map(str, shape))}:"
                f" {first_line(error, 150)}."
            ) from error
        self.subpc_checked.add(shape)


class _Shapes:
    """The network on the meta device."""

    def __init__(self, network: GraphNetwork) -> None:
        self.network = network
        self.sizes: dict[str, Any] = {
            key: value.to("meta") for key, value in network.state_dict().items()
        }

    def run(self, x: torch.Tensor) -> None:
        """ModelFileError where a result has too many elements; whatever PyTorch raises where shapes
        do not fit."""
        values: list[Any] = [x]
        with torch.no_grad():
            for index, node in enumerate(self.network.subpc_graph.nodes):
                values.append(self._step(node, [values[i] for i in node.inputs]))
                alive = sum(math.prod(value.shape) for value in values if value is not None)
                if alive > _MAX_ELEMENTS:
                    name = node.options.get("name", node.op)
                    raise ModelFileError(
                        f"Node {index} ({name}) needs memory for {alive} numbers; more than"
                        f" {_MAX_ELEMENTS} are refused."
                    )
                for done in self.network.subpc_last.get(index, ()):
                    values[done] = None

    def _step(self, node: Node, inputs: list[Any]) -> Any:
        if node.op == LAYER:
            name = node.options["name"]
            kind, options = self.network.subpc_graph.layers[name]
            own = {
                key.removeprefix(f"{name}."): value
                for key, value in self.sizes.items()
                if key.startswith(f"{name}.")
            }
            # Built anew: the network's own modules may have hooks, which expect numbers.
            return KINDS[kind].build(own, **options).eval()(*inputs)
        return (
            self.sizes[node.options["name"]]
            if node.op == TENSOR
            else OPERATORS[node.op].function(*inputs, **node.options)
        )


def _holder(root: nn.Module, name: str) -> tuple[nn.Module, str]:
    """What root.a.b.c is an attribute of, made of empty modules where there is none yet, and
    "c"."""
    *parents, last = name.split(".")
    for part in parents:
        if part not in dict(root.named_children()):
            root.add_module(part, nn.Module())
        root = root.get_submodule(part)
    return root, last


def _place(root: nn.Module, name: str, module: nn.Module) -> None:
    """root.a.b.c = module, with empty modules between."""
    root, last = _holder(root, name)
    if last in dict(root.named_children()):
        for key, child in root.get_submodule(last).named_children():
            module.add_module(key, child)
        if len(list(root.get_submodule(last).parameters(recurse=False))):
            raise ValueError("its name is there twice")
        delattr(root, last)
    root.add_module(last, module)


def _place_tensor(root: nn.Module, name: str, value: torch.Tensor) -> None:
    root, last = _holder(root, name)
    if last not in dict(root.named_parameters(recurse=False)) and last not in dict(
        root.named_buffers(recurse=False)
    ):
        root.register_buffer(last, value)


def _last_uses(graph: Graph) -> dict[int, list[int]]:
    """Node index -> values that no later node reads."""
    last: dict[int, int] = {}
    for index, node in enumerate(graph.nodes):
        for value in node.inputs:
            last[value] = index
    result: dict[int, list[int]] = {}
    for value, index in last.items():
        if value not in graph.outputs:
            result.setdefault(index, []).append(value)
    return result
