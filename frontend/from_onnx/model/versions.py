"""Models in old versions of the standard operators, brought to one that the importer knows."""

import numpy as np
import onnx
from onnx import numpy_helper, shape_inference, version_converter

from subpc.errors import ModelFileError
from subpc.frontend.from_onnx.graph import opset_of, value_shapes
from subpc.frontend.messages import first_line

# Older models broadcast by attribute; the importer knows operators from here on.
OLDEST_OPSET = 7


def at_known_opset(model: onnx.ModelProto, file: str) -> onnx.ModelProto:
    """`model`, or a converted copy that computes the same; ModelFileError where onnx cannot convert
    it, or knows no such version."""
    opset, newest = opset_of(model), onnx.defs.onnx_opset_version()
    if opset > newest:
        raise ModelFileError(
            f"{file} uses opset {opset}; the installed onnx {onnx.__version__} knows up to"
            f" {newest}.\nExport it with opset {newest} or lower, or update onnx."
        )
    if opset >= OLDEST_OPSET:
        return model
    try:
        return version_converter.convert_version(
            _with_slopes_as_channels(_with_weights_as_inputs(model)), OLDEST_OPSET
        )
    except Exception as error:
        raise ModelFileError(
            f"{file} uses opset {opset}, and cannot be brought to {OLDEST_OPSET}:"
            f" {first_line(error)}"
        ) from error


def _with_weights_as_inputs(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy as models of that age were written, which the converter takes for granted: weights are
    among the inputs."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    known = {value.name for value in result.graph.input}
    for tensor in result.graph.initializer:
        if tensor.name not in known:
            result.graph.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            )
    return result


def _with_slopes_as_channels(model: onnx.ModelProto) -> onnx.ModelProto:
    """PRelu's slopes once belonged to channels; later they are broadcast as any operand, so one a
    channel needs axes behind it."""
    shapes = value_shapes(shape_inference.infer_shapes(model).graph)
    nodes = []
    for node in model.graph.node:
        rank = len(shapes.get(node.input[0], ())) if node.op_type == "PRelu" else 0
        slope = shapes.get(node.input[1], ()) if rank > 2 else ()
        if len(slope) == 1 and slope != (1,):
            wide, target = f"{node.output[0]}_slope", f"{node.output[0]}_slope_shape"
            shape = numpy_helper.from_array(
                np.array([slope[0], *[1] * (rank - 2)], np.int64), target
            )
            model.graph.initializer.append(shape)
            model.graph.input.append(
                onnx.helper.make_tensor_value_info(target, shape.data_type, list(shape.dims))
            )
            nodes.append(onnx.helper.make_node("Reshape", [node.input[1], target], [wide]))
            node.input[1] = wide
        nodes.append(node)
    copied = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copied)
    return model
