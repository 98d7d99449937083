"""Runs a PyTorch model operator by operator, and keeps what each layer computes."""

from typing import Any

import numpy as np
import torch
from torch import fx

from subpc.errors import ModelFileError
from subpc.frontend.from_torch.network import ExportedNetwork
from subpc.frontend.messages import printable
from subpc.frontend.trace import (
    ADD,
    AFFINE,
    CODES,
    LAYER,
    OTHER,
    ROUNDED,
    Array,
    Trace,
    TracedGraph,
    chain,
    collect,
    unique_names,
)

_LAYERS = {
    "aten.conv2d.default",
    "aten.conv2d.padding",
    "aten.convolution.default",
    "aten._convolution.default",
    "aten.linear.default",
}
_BATCH_NORMS = {
    "aten.batch_norm.default",
    "aten.dropout.default",
    "aten.dropout_.default",
    "aten.alias.default",
    "aten.contiguous.default",
}
_ROUNDING = {"quantize_per_tensor": CODES, "dequantize_per_tensor": ROUNDED}
_ARITHMETIC = {"add", "add_", "sub", "sub_", "mul", "mul_", "div", "div_"}


class TorchTracer:
    """A network that PyTorch runs operator by operator."""

    def __init__(self, network: ExportedNetwork) -> None:
        """Read the chains behind its layers."""
        self._network, self._program = network, network.program
        specs = network.program.graph_signature.input_specs
        self._owned = {
            str(spec.arg.name): str(spec.target) for spec in specs if spec.target is not None
        }
        nodes = [n for n in network.nodes if self._kind(n) == LAYER]
        graph = TracedGraph[fx.Node](readers=lambda n: list(n.users), shape=_shape, kind=self._kind)
        layers = unique_names(
            network.weights[_name(node.args[1])].name.removesuffix(".weight") for node in nodes
        )
        self._chains = {name: chain(graph, node) for name, node in zip(layers, nodes, strict=True)}

    def run(self, inputs: tuple[torch.Tensor, ...]) -> Trace:
        """Outputs and layers' results for these inputs.

        inputs: tensors of the shapes that the program was captured for, in its order.
        """
        wanted = {node for nodes in self._chains.values() for node in nodes}
        runner = _Runner(self._program.graph_module, wanted)
        waiting = iter(inputs)
        arguments = [
            self._argument(n, waiting) for n in self._program.graph.nodes if n.op == "placeholder"
        ]
        with torch.no_grad():
            results = runner.run(*arguments)
        first = len(results) - len(self._program.graph_signature.user_outputs)
        outputs = [_output(value) for value in results[first:] if isinstance(value, torch.Tensor)]
        pairs = {
            name: [(self._kind(n), runner.kept[n]) for n in nodes if n in runner.kept]
            for name, nodes in self._chains.items()
        }
        return collect(pairs, outputs)

    def _argument(self, node: fx.Node, waiting: Any) -> Any:
        if node.name in self._owned:
            weight = self._network.weights.get(node.name)
            if weight is None:
                raise ModelFileError(
                    f"the program has no value for {printable(self._owned[node.name])}; export it"
                    " again"
                )
            # In-place operators write where they read: the program's own tensors have to survive.
            return weight.value.clone()
        return next(waiting)

    def _kind(self, node: fx.Node) -> str:
        name = str(node.target)
        if name in _LAYERS and _name(node.args[1]) in self._network.weights:
            return LAYER
        if name in _BATCH_NORMS:
            return AFFINE
        operator = getattr(node.target, "__name__", name).split(".")[0]
        if operator not in _ARITHMETIC:
            return _ROUNDING.get(operator, OTHER)
        activations = [
            a for a in node.args[:2] if isinstance(a, fx.Node) and a.name not in self._owned
        ]
        if len(activations) < 2:
            return AFFINE
        return (
            ADD
            if operator in ("add", "add_") and _shape(activations[0]) == _shape(activations[1])
            else OTHER
        )


class _Runner(fx.Interpreter):
    """Keeps copies of some nodes' results: operators that work in place would change them
    afterwards."""

    def __init__(self, module: fx.GraphModule, wanted: set[fx.Node]) -> None:
        super().__init__(module)
        self._wanted, self.kept = wanted, dict[fx.Node, Array]()

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n in self._wanted and isinstance(result, torch.Tensor):
            self.kept[n] = _array(result)
        return result


def _name(argument: Any) -> str:
    return str(argument.name) if isinstance(argument, fx.Node) else ""


def _shape(node: fx.Node) -> tuple[int, ...] | None:
    value = node.meta.get("val")
    return tuple(value.shape) if isinstance(value, torch.Tensor) else None


def _output(value: torch.Tensor) -> Array:
    """Class numbers and masks keep their type."""
    return _array(value) if value.is_floating_point() else np.array(value.detach().numpy())


def _array(value: torch.Tensor) -> Array:
    return np.array(value.detach().float().numpy(), np.float32)
