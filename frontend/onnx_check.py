"""What is wrong with the nodes of a file, found before anything is computed with them."""

import onnx

from subpc.errors import ModelFileError
from subpc.frontend.onnx_graph import attributes_of, node_name

_WINDOWS = ("MaxPool", "AveragePool", "LpPool", "Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "DeformConv")
# The least that each attribute of a window may be; more than the largest does not fit any picture, and overflows where it is multiplied.
_LEAST = {"kernel_shape": 1, "strides": 1, "dilations": 1, "pads": 0, "group": 1, "output_padding": 0, "output_shape": 1}
_LARGEST = 1 << 16


def check_nodes(graph: onnx.GraphProto) -> None:
    """ModelFileError for windows with numbers that no picture has room for, before anything is computed with them."""
    for node in graph.node:
        if node.op_type not in _WINDOWS:
            continue
        for name, value in attributes_of(node).items():
            numbers = value if isinstance(value, list) else [value]
            if name in _LEAST and not all(isinstance(n, int) and _LEAST[name] <= n <= _LARGEST for n in numbers):
                given = ",".join(map(str, numbers[:4]))
                raise ModelFileError(
                    f"Node {node_name(node)} ({node.op_type}) has {name} {given}; accepted: {_LEAST[name]} to {_LARGEST} along each axis."
                )
