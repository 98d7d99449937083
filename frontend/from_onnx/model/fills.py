"""Constants that repeat one number, held as that number: what files of networks without their
weights are made of."""

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import numpy_helper

from subpc.errors import ModelFileError
from subpc.frontend.from_onnx.graph import node_name
from subpc.frontend.from_onnx.model.branches import names_read

# They repeat the number that their first input repeats, however they turn it.
_MOVES = frozenset(
    {
        "Expand",
        "Flatten",
        "Identity",
        "Reshape",
        "Slice",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    }
)
# Operators whose further inputs are weights, and what weights that a file does not hold may take:
# the largest classifiers have 0.6 GB.
_WEIGHTED = frozenset({"BatchNormalization", "Conv", "ConvTranspose", "Gemm", "MatMul"})
_WEIGHT_BYTES = 1 << 30


def filled(
    node: onnx.NodeProto, constants: dict[str, np.ndarray], shape: tuple[int, ...] | None
) -> np.ndarray | None:
    """The node's result of `shape`, as a view of one number; None where it is more than that, or
    not a constant."""
    if shape is None or any(name and name not in constants for name in node.input):
        return None
    if node.op_type == "ConstantOfShape":
        given = (
            numpy_helper.to_array(attribute.t)
            for attribute in node.attribute
            if attribute.name == "value"
        )
        source = next(given, np.zeros(1, np.float32))
    elif node.op_type in _MOVES:
        source = constants[node.input[0]]
    else:
        return None
    return np.broadcast_to(source[(0,) * source.ndim], shape) if is_fill(source) else None


def is_fill(value: np.ndarray) -> bool:
    """Whether the array is one number, in memory.

    value: of any shape.
    """
    return value.size > 0 and (value.size == 1 or not any(value.strides))


def bytes_of_fills(
    nodes: Iterable[onnx.NodeProto], constants: dict[str, np.ndarray], outputs: Iterable[str]
) -> int:
    """What the fills that `nodes` read and those among `outputs` take once they are written out,
    weights of layers left out.

    ModelFileError where weights alone take too much.
    """
    others = {name for name in outputs if name in constants and is_fill(constants[name])}
    weights: dict[str, int] = {}
    left = _WEIGHT_BYTES
    for node in nodes:
        read = {name for name in names_read(node) if name in constants and is_fill(constants[name])}
        own = read & set(node.input[1:]) if node.op_type in _WEIGHTED else set()
        others |= read - own
        new = {name: constants[name].nbytes for name in own - weights.keys()}
        weights |= new
        left -= sum(new.values())
        if left < 0:
            raise ModelFileError(
                f"With node {node_name(node)} ({node.op_type}), the model has more than"
                f" {_WEIGHT_BYTES} bytes of weights that are one number each.\nStore the weights in"
                " the file."
            )
    return sum(constants[name].nbytes for name in others - weights.keys())
