"""What an ONNX graph computes from constants alone, computed once: hoisted weights, filled weights,
shape arithmetic."""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from subpc.errors import ModelFileError, SubpcError
from subpc.frontend.from_onnx.graph import node_name, opset_of, wrong_shapes
from subpc.frontend.from_onnx.model.branches import names_read, rename_read, taken_branch
from subpc.frontend.from_onnx.model.codes import ConstantCodes, check_blocks, meaning_opset
from subpc.frontend.from_onnx.model.fills import bytes_of_fills, filled, is_fill
from subpc.frontend.from_onnx.model.functions import opened_node
from subpc.frontend.from_onnx.model.indices import check_indices, check_padding
from subpc.frontend.from_onnx.model.infer import Types, infer_node, shape_of, type_of
from subpc.frontend.from_onnx.model.quantized import opened_quantized
from subpc.frontend.messages import first_line, printable

# Random numbers are no constants.
_RANDOM = ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike")
_NEVER = frozenset({*_RANDOM, "Multinomial", "Bernoulli"})
_COPIES = frozenset({"Identity", "Dropout"})
# Their results have as many elements as their input's values say, but no more than there are in the
# input, once for each axis.
_PICKING = frozenset({"NonZero", "Unique", "Compress"})
# All that folding makes: this much, and some copies of what the file itself holds, in wider types.
# A small file cannot make much.
_BYTES, _COPIES_OF_FILE = 1 << 28, 16
# Multiplications in one node; more would take minutes in ONNX's reference.
_MAX_WORK = 1 << 33

Constants = dict[str, np.ndarray]


@dataclass(frozen=True)
class Folded:
    """A model, and which of its constants are whole numbers of the file times scales."""

    model: onnx.ModelProto
    codes: ConstantCodes


def fold(model: onnx.ModelProto, shapes: Sequence[tuple[int, ...]] = ()) -> Folded:
    """`model` with the shapes of all values, where constants are initializers and nothing is left
    that could be computed now.

    shapes: those of the inputs, if the user gave them. Node order and names stay. SubpcError where
    shapes contradict each other, or
    something is too large: known from shapes, before it is computed.
    """
    folder = _Folder(model)
    waiting = deque(model.graph.node)
    while waiting:
        node = waiting.popleft()
        try:
            parts = folder.opened(node)
            if parts is None:
                folder.take(node)
            else:
                waiting.extendleft(reversed(parts))
        except (SubpcError, MemoryError):
            raise
        except Exception as error:
            raise wrong_shapes(
                f"{node_name(node)} ({node.op_type}): {first_line(error)}", shapes
            ) from error
    return Folded(folder.rebuilt(), folder.codes)


class _Folder:
    def __init__(self, model: onnx.ModelProto) -> None:
        self.model, self.opset = model, opset_of(model)
        self.outputs = {value.name for value in model.graph.output}
        self.constants: Constants = {
            tensor.name: _array(tensor) for tensor in model.graph.initializer
        }
        self.types: Types = {value.name: value.type for value in model.graph.input}
        self.types |= {name: type_of(value) for name, value in self.constants.items()}
        self.declared = {
            value.name: value.type for value in (*model.graph.value_info, *model.graph.output)
        }
        self.left = _BYTES + _COPIES_OF_FILE * sum(
            value.nbytes for value in self.constants.values()
        )
        self.written_out: set[str] = set()  # fills that were taken off what may be made
        self.aliases: dict[str, str] = {}
        self.codes = ConstantCodes()
        self.nodes: list[onnx.NodeProto] = []

    def opened(self, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
        """What stands for a composite operator, or for branches of which one is taken; None where
        the node stands for itself."""
        rename_read(node, self.aliases)
        if node.op_type == "Range":
            self._make_scalars(node)
        branch = taken_branch(node, self.constants)
        if branch is None:
            return opened_quantized(node) or opened_node(node, self.types, self.opset)
        self.types |= {
            name: type_of(value) for name, value in self.constants.items() if name not in self.types
        }
        return branch

    def _make_scalars(self, node: onnx.NodeProto) -> None:
        """Range takes numbers; ONNX's own definitions give it tensors of one element, which its
        inference refuses."""
        for index, name in enumerate(node.input):
            value = self.constants.get(name)
            if value is not None and value.ndim and value.size == 1:
                node.input[index] = f"{name}.number"
                self.constants[node.input[index]] = value.reshape(())
                self.types[node.input[index]] = type_of(value.reshape(()))

    def take(self, node: onnx.NodeProto) -> None:
        """Compute the node, leave it out as a copy, or keep it."""
        if self._is_copy(node):
            if node.output[0] not in self.outputs:
                self.aliases[node.output[0]] = node.input[0]
                return
            node.op_type = "Identity"
            del node.attribute[:], node.input[1:], node.output[1:]
        found = infer_node(node, self.types, self.constants, meaning_opset(node, self.opset))
        self._compare(found)
        if node.input:
            shape = shape_of(self.types.get(node.input[0]))
            check_indices(node, shape, self.constants)
            check_padding(node, shape, shape_of(found.get(node.output[0])))
        self.types |= found
        values = self._values(node, found)
        if values is None:
            self.nodes.append(node)
            return
        for name, value in zip(node.output, values, strict=False):
            self.constants[name] = np.asarray(value)
            self.types[name] = type_of(self.constants[name])
        self.codes.note(node, self.constants)

    def _is_copy(self, node: onnx.NodeProto) -> bool:
        if node.op_type != "Cast":
            return node.op_type in _COPIES
        source = self.types.get(node.input[0])
        return source is not None and source.tensor_type.elem_type == next(
            a.i for a in node.attribute if a.name == "to"
        )

    def _compare(self, found: Types) -> None:
        """ValueError where the file says of a value what cannot be."""
        for name, value in found.items():
            said, is_ = shape_of(self.declared.get(name)), shape_of(value)
            if said is not None and is_ is not None and said != is_:
                raise ValueError(f"{list(is_)} is computed, {list(said)} declared")

    def _values(self, node: onnx.NodeProto, found: Types) -> Iterable[Any] | None:
        shape = shape_of(self.types.get(node.input[0])) if node.input else None
        if node.op_type == "Shape" and shape is not None:
            a = {attribute.name: attribute.i for attribute in node.attribute}
            return [np.array(shape[a.get("start", 0) : a.get("end", len(shape))], np.int64)]
        if node.op_type == "Size" and shape is not None:
            return [np.array(math.prod(shape), np.int64)]
        if node.op_type in _NEVER or any(
            name and name not in self.constants for name in node.input
        ):
            return None
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            return None
        fill = filled(node, self.constants, shape_of(found.get(node.output[0])))
        if fill is not None:
            return [fill]
        return self._computed(node) if self._reserve(node, found) else None

    def _reserve(self, node: onnx.NodeProto, found: Types) -> bool:
        """Take what the node makes off what may still be made; False where it is not known before
        it is made."""
        sizes = {name: shape_of(found.get(name)) for name in node.output if name}
        if node.op_type in _PICKING:
            source = self.constants[node.input[0]]
            sizes = dict.fromkeys(sizes, (source.size * max(source.ndim, 1),))
        if any(size is None for size in sizes.values()):
            return False
        made = sum(math.prod(size or ()) * _bytes(found.get(name)) for name, size in sizes.items())
        fills = {
            name for name in node.input if name and is_fill(self.constants[name])
        } - self.written_out
        self.written_out |= fills
        self._take_off(
            made + sum(self.constants[name].nbytes for name in fills),
            f"Node {node_name(node)} ({node.op_type}) makes",
        )
        if _work(node, self.constants, sizes) > _MAX_WORK:
            raise ModelFileError(
                f"Node {node_name(node)} ({node.op_type}) computes a constant in more than"
                f" {_MAX_WORK} multiplications."
            )
        return True

    def _take_off(self, made: int, who_makes: str) -> None:
        self.left -= made
        if self.left < 0:
            raise ModelFileError(
                f"{who_makes} {made} more bytes of constants, too many for a file of this size.\n"
                "Store the constants in the file, or compute them from the input."
            )

    def _computed(self, node: onnx.NodeProto) -> Iterable[Any]:
        feeds = {name: self.constants[name] for name in node.input if name}
        try:
            check_blocks(node, feeds)
            single = _single(node, feeds, meaning_opset(node, self.opset))
            with np.errstate(all="ignore"):  # infinities and NaNs are what ONNX makes of them
                return ReferenceEvaluator(single).run(None, feeds)  # type: ignore[no-any-return]
        except Exception as error:
            raise ModelFileError(
                f"Node {node_name(node)} ({node.op_type}) cannot be computed: {first_line(error)}"
            ) from error

    def rebuilt(self) -> onnx.ModelProto:
        """The model that is left."""
        used = {name for node in self.nodes for name in names_read(node)} | self.outputs
        self._take_off(bytes_of_fills(self.nodes, self.constants, self.outputs), "The file fills")
        result = onnx.ModelProto()
        result.CopyFrom(self.model)
        graph = result.graph
        inputs = [value for value in graph.input if value.name not in self.constants]
        for part in (graph.node, graph.initializer, graph.value_info, graph.input):
            del part[:]
        graph.node.extend(self.nodes)
        graph.input.extend(inputs)
        graph.initializer.extend(
            numpy_helper.from_array(v, name) for name, v in self.constants.items() if name in used
        )
        kept = [
            name
            for node in self.nodes
            for name in node.output
            if name in self.types and name not in self.outputs
        ]
        graph.value_info.extend(helper.make_value_info(name, self.types[name]) for name in kept)
        for value in graph.output:
            if value.name in self.types:
                value.type.CopyFrom(self.types[value.name])
        return result


def _array(tensor: onnx.TensorProto) -> np.ndarray:
    try:
        return np.asarray(numpy_helper.to_array(tensor))
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise ModelFileError(
            f"Weight {printable(tensor.name)!r} of shape {list(tensor.dims)} cannot be read:"
            f" {first_line(error)}"
        ) from error


def _bytes(value: onnx.TypeProto | None) -> int:
    """Of one element; 8 where the type is not known."""
    if value is None or not value.tensor_type.elem_type:
        return 8
    return max(int(helper.tensor_dtype_to_np_dtype(value.tensor_type.elem_type).itemsize), 1)


def _work(
    node: onnx.NodeProto, constants: Constants, sizes: dict[str, tuple[int, ...] | None]
) -> float:
    """Multiplications of a product of matrices or a convolution, roughly."""
    made = float(sum(math.prod(size or ()) for size in sizes.values()))
    operands = [float(constants[name].size) for name in node.input if name]
    if len(operands) < 2 or node.op_type not in (
        "MatMul",
        "Gemm",
        "Einsum",
        "Conv",
        "ConvTranspose",
        "MatMulInteger",
        "ConvInteger",
    ):
        return made
    if node.op_type in ("MatMul", "Gemm", "MatMulInteger"):
        return math.sqrt(made * operands[0] * operands[1])  # mn, mk and kn for m, n and k
    return made * min(operands[:2])


def _single(node: onnx.NodeProto, feeds: Constants, opset: int) -> onnx.ModelProto:
    inputs = [helper.make_value_info(name, type_of(value)) for name, value in feeds.items()]
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output]
    graph = helper.make_graph([node], "constant", inputs, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
