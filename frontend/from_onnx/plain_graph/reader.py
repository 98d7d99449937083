"""An ONNX network that is gone through node by node: what its converters to a plain graph ask."""

from collections.abc import Mapping

import onnx
import torch

from subpc.frontend.from_onnx.network import OnnxNetwork
from subpc.frontend.messages import layer_of
from subpc.frontend.plain_graph.builder import GraphBuilder
from subpc.frontend.plain_graph.reader import Weight


class OnnxGraphReader:
    """A GraphReader whose values have names. values: the builder's number of each that has one."""

    def __init__(self, network: OnnxNetwork) -> None:
        self.network, self.builder = network, GraphBuilder()
        self.values: dict[str, int] = {network.inputs[0].name: 0}

    @property
    def opset(self) -> int:
        """The version of the standard operators."""
        return self.network.opset

    def value(self, name: str) -> int:
        """The number of a value; a constant is placed as one."""
        if name not in self.values:
            weight = self.weight(name)
            if weight is None:
                raise ValueError("it reads what nothing computes")
            self.values[name] = self.builder.tensor(weight.name, weight.value)
        return self.values[name]

    def weight(self, name: str) -> Weight | None:
        """The constant of this name."""
        value = self.network.constants.get(name)
        return None if value is None else Weight(self.network.names[name], torch.from_numpy(value))

    def number(self, name: str) -> float | None:
        """The number in a constant of one element that does not widen the other operand."""
        value = self.network.constants.get(name)
        return (
            float(value.reshape(()))
            if value is not None and value.size == 1 and value.ndim <= 1
            else None
        )

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a value; KeyError where it is not known."""
        return self.network.shapes[name]

    def is_read_once(self, name: str) -> bool:
        """Whether one node alone reads a value, once, and the caller does not get it."""
        return len(self.network.readers.get(name, ())) == 1 and name not in self.network.outputs

    def numbers(self, node: onnx.NodeProto, index: int) -> list[float] | None:
        """The constant input `index` of a node as a list; None where it is left out."""
        if len(node.input) <= index or not node.input[index]:
            return None
        value = self.network.constants.get(node.input[index])
        if value is None:
            raise ValueError("an option depends on the input")
        found: list[float] = value.reshape(-1).tolist()
        return found

    def layer_name(self, node: onnx.NodeProto, index: int = 1) -> str:
        """The layer of a node whose weight is input `index`."""
        names: Mapping[str, str] = self.network.names
        return layer_of(names.get(node.input[index], node.input[index]))
