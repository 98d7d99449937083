"""An .onnx file as a network of plain layers, through the same checks and constant folding as for compiling."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from subpc.algorithms.file_format.graph.network import GraphNetwork
from subpc.errors import UnsupportedModelError
from subpc.frontend.from_onnx.graph import node_name, opset_of, user_inputs, value_shapes
from subpc.frontend.from_onnx.graph_converters import CONVERTERS
from subpc.frontend.from_onnx.read import read_onnx
from subpc.frontend.from_onnx.static import static_model
from subpc.frontend.from_onnx.to_relax import original_names
from subpc.frontend.graph_builder import GraphBuilder, refuse_all
from subpc.frontend.imported_model import layer_of
from subpc.frontend.messages import first_line, printable


def network_from_onnx(path: Path, shape: tuple[int, ...] | None) -> tuple[GraphNetwork, tuple[int, ...]]:
    """The network in `path`, for batches of any size, and its input's shape; shape None: the file's, with 1 for an open batch.

    Raises ModelFileError, ConfigError where the file leaves the image's size open, UnsupportedModelError that names all operators,
    with their nodes, that a file of ours cannot hold.
    """
    model = read_onnx(path)
    inputs = user_inputs(model.graph)
    if len(inputs) != 1:
        names = ", ".join(printable(value.name) for value in inputs)
        raise UnsupportedModelError(f"The network has {len(inputs)} inputs ({names}); networks with one input can be compressed.")
    wanted = shape or _with_batch(inputs[0])
    reader = OnnxReader(static_model(model, [wanted] if wanted else []))
    own = tuple(dim.dim_value for dim in inputs[0].type.tensor_type.shape.dim)
    return reader.network(), wanted or own


def _with_batch(value: onnx.ValueInfoProto) -> tuple[int, ...] | None:
    """The declared shape with 1 for a batch that is open; None where more is open, or nothing."""
    extents = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    return (1, *extents[1:]) if extents and extents[0] < 1 and all(n > 0 for n in extents[1:]) else None


class OnnxReader:
    """Goes through the nodes of a folded model. values: number of each computed value; constants: the others."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.builder = GraphBuilder()
        self.graph, self.opset = model.graph, opset_of(model)
        self.shapes = value_shapes(model.graph)
        self.constants = {tensor.name: np.array(numpy_helper.to_array(tensor)) for tensor in model.graph.initializer}
        self.shapes |= {name: value.shape for name, value in self.constants.items()}
        self.names = original_names(model.graph)
        outputs = [value.name for value in model.graph.output]
        self.readers = Counter([*outputs, *(name for node in model.graph.node for name in node.input)])
        self.values: dict[str, int] = {user_inputs(model.graph)[0].name: 0}

    def network(self) -> GraphNetwork:
        """The network; UnsupportedModelError with everything that is missing."""
        missing: dict[str, list[str]] = {}
        lost: set[str] = set()
        for node in self.graph.node:
            if lost & set(node.input):
                lost |= set(node.output)
                continue
            reason = self._convert(node)
            if reason is not None:
                missing.setdefault(reason, []).append(node_name(node))
                lost |= set(node.output)
        refuse_all(missing)
        return self.builder.network([self.value(output.name) for output in self.graph.output])

    def value(self, name: str) -> int:
        """The number of a value, which may be a constant."""
        if name not in self.values:
            tensor = self.tensor(name)
            self.values[name] = self.builder.tensor(self.names.get(name, name), tensor)
        return self.values[name]

    def tensor(self, name: str) -> torch.Tensor:
        """A constant as a float tensor; ValueError where the value is computed from the input."""
        if name not in self.constants:
            raise ValueError("its weights depend on the input")
        return torch.from_numpy(np.ascontiguousarray(self.constants[name]))

    def numbers(self, node: onnx.NodeProto, index: int) -> list[float] | None:
        """The constant input `index` of a node as a list; None where it is left out."""
        if len(node.input) <= index or not node.input[index]:
            return None
        if node.input[index] not in self.constants:
            raise ValueError("an option depends on the input")
        found: list[float] = self.constants[node.input[index]].reshape(-1).tolist()
        return found

    def layer_name(self, node: onnx.NodeProto, index: int = 1) -> str:
        """The layer of a node whose weight is input `index`."""
        return layer_of(self.names.get(node.input[index], node.input[index]))

    def _convert(self, node: onnx.NodeProto) -> str | None:
        """None, or what is in the way."""
        convert = CONVERTERS.get(node.op_type)
        if convert is None:
            return str(node.op_type)
        attributes: dict[str, Any] = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        attributes = {key: value.decode() if isinstance(value, bytes) else value for key, value in attributes.items()}
        try:
            result = convert(self, node, attributes)
        except Exception as error:
            return f"{node.op_type}: {first_line(error, 80)}"
        results = result if isinstance(result, list) else [result]
        self.values |= dict(zip(node.output, results, strict=False))
        return None
