"""An .onnx file as a network of plain layers, through the same checks and constant folding as for
compiling."""

import onnx

from subpc.algorithms.file_format.graph.network import GraphNetwork
from subpc.errors import UnsupportedModelError
from subpc.frontend.from_onnx.graph import attributes_of, node_name
from subpc.frontend.from_onnx.network import OnnxFile, OnnxNetwork
from subpc.frontend.from_onnx.plain_graph.converters import CONVERTERS
from subpc.frontend.from_onnx.plain_graph.reader import OnnxGraphReader
from subpc.frontend.input_shapes import for_one_image
from subpc.frontend.messages import first_line, printable
from subpc.frontend.plain_graph.builder import refuse_all


def network_from_onnx(
    file: OnnxFile, shape: tuple[int, ...] | None
) -> tuple[GraphNetwork, tuple[int, ...]]:
    """The network in `file`, for batches of any size, and its input's shape; shape None: the
    file's, with 1 for an open batch.

    Raises ConfigError where the file leaves the image's size open, UnsupportedModelError that names
    all operators, with their nodes, that a file of ours cannot hold.
    """
    if len(file.inputs) != 1:
        names = ", ".join(printable(info.name) for info in file.inputs)
        raise UnsupportedModelError(
            f"The network has {len(file.inputs)} inputs ({names}); networks with one input can be"
            " compressed."
        )
    wanted = shape or for_one_image(file.inputs[0])
    network = file.network([wanted] if wanted else [])
    return _plain(network), network.shapes[network.inputs[0].name]


def _plain(network: OnnxNetwork) -> GraphNetwork:
    """UnsupportedModelError with everything that is missing."""
    reader = OnnxGraphReader(network)
    missing: dict[str, list[str]] = {}
    lost: set[str] = set()
    for node in network.nodes:
        if lost & set(node.input):
            lost |= set(node.output)
            continue
        reason = _convert(node, reader)
        if reason is not None:
            missing.setdefault(reason, []).append(node_name(node))
            lost |= set(node.output)
    refuse_all(missing)
    return reader.builder.network([reader.value(name) for name in network.outputs])


def _convert(node: onnx.NodeProto, reader: OnnxGraphReader) -> str | None:
    """None, or what is in the way."""
    convert = CONVERTERS.get(node.op_type)
    if convert is None:
        return str(node.op_type)
    try:
        result = convert(reader, node, attributes_of(node))
    except Exception as error:
        return f"{node.op_type}: {first_line(error, 80)}"
    results = result if isinstance(result, list) else [result]
    reader.values |= dict(zip(node.output, results, strict=False))
    return None
