"""What is wrong with the parts of an ONNX file, found before anything is computed with them."""

import onnx
from onnx import TensorProto

from subpc.errors import ModelFileError, UnsupportedModelError
from subpc.frontend.from_onnx.graph import MAX_NAME, STANDARD_DOMAINS, attributes_of, node_name
from subpc.frontend.from_onnx.model.external import tensor_bytes
from subpc.frontend.messages import printable

_WINDOWS = (
    "MaxPool",
    "AveragePool",
    "LpPool",
    "Conv",
    "ConvTranspose",
    "ConvInteger",
    "QLinearConv",
    "QLinearAveragePool",
    "DeformConv",
)
# The least that each attribute of a window may be; more than the largest does not fit any image,
# and overflows where it is multiplied.
_LEAST = {
    "kernel_shape": 1,
    "strides": 1,
    "dilations": 1,
    "pads": 0,
    "group": 1,
    "output_padding": 0,
    "output_shape": 1,
}
_LARGEST = 1 << 16
_AUTO_PAD = ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")


def check_names(graph: onnx.GraphProto, file: str) -> None:
    """ModelFileError for names that are no text: protobuf gives those as bytes."""
    names = [
        value.name for part in (graph.input, graph.output, graph.initializer) for value in part
    ]
    for node in graph.node:
        names += [
            node.name,
            node.op_type,
            node.domain,
            *node.input,
            *node.output,
            *(a.name for a in node.attribute),
        ]
    wrong = next((name for name in names if not isinstance(name, str)), None)
    if wrong is not None:
        raise ModelFileError(
            f"{file} is damaged: the name {printable(wrong)[:MAX_NAME]!r} is not UTF-8."
        )


def check_parts(model: onnx.ModelProto, file: str) -> None:
    """ModelFileError or UnsupportedModelError for what the converters further down would stumble
    over."""
    versions = sorted(
        {entry.version for entry in model.opset_import if entry.domain in STANDARD_DOMAINS}
    )
    if len(versions) != 1 or versions[0] < 1:
        said = f"opset {versions[0]}" if len(versions) == 1 else f"{len(versions)} opsets"
        raise ModelFileError(
            f"{file} names {said} of the standard operators; one of 1 or more is accepted. Export"
            " the model again."
        )
    if not model.graph.output:
        raise ModelFileError(f"{file} has no outputs, so there is nothing to compute.")
    if model.graph.sparse_initializer or any(
        a.HasField("sparse_tensor") for node in model.graph.node for a in node.attribute
    ):
        raise UnsupportedModelError(
            f"{file} holds sparse tensors; store them dense: blocks of zeros are found in dense"
            " weights."
        )
    for tensor in model.graph.initializer:
        _check_tensor(tensor)
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                _check_tensor(attribute.t)
        _check_window(node)


def _check_tensor(tensor: TensorProto) -> None:
    if tensor.data_type == TensorProto.STRING:
        raise UnsupportedModelError(
            f"Weight {printable(tensor.name)!r} holds text; compiled models compute with numbers."
        )
    wanted = tensor_bytes(tensor)
    if tensor.HasField("raw_data") and len(tensor.raw_data) != wanted:
        raise ModelFileError(
            f"Weight {printable(tensor.name)!r} of shape {list(tensor.dims)} takes {wanted} bytes,"
            f" but has {len(tensor.raw_data)}. The file is damaged, or was cut."
        )


def _check_window(node: onnx.NodeProto) -> None:
    """A window with numbers that no image has room for."""
    if node.op_type not in _WINDOWS:
        return
    a = attributes_of(node)
    if a.get("auto_pad", "NOTSET") not in _AUTO_PAD:
        given = printable(str(a["auto_pad"]))
        raise ModelFileError(
            f"Node {node_name(node)} ({node.op_type}) has auto_pad {given!r}; accepted:"
            f" {', '.join(_AUTO_PAD)}."
        )
    for name, value in a.items():
        numbers = value if isinstance(value, list) else [value]
        if name in _LEAST and not all(
            isinstance(n, int) and _LEAST[name] <= n <= _LARGEST for n in numbers
        ):
            given = ",".join(map(str, numbers[:4]))
            raise ModelFileError(
                f"Node {node_name(node)} ({node.op_type}) has {name} {given}; accepted:"
                f" {_LEAST[name]} to {_LARGEST} along each axis."
            )
