"""An .onnx file to a checked model with static input shapes: every reason against it is found here,
before anything compiles."""

from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import checker, shape_inference

from subpc.errors import ConfigError, ModelFileError, UnsupportedModelError
from subpc.frontend.from_onnx.graph import node_name, user_inputs, value_shapes, wrong_shapes
from subpc.frontend.from_onnx.model.check import check_names, check_parts
from subpc.frontend.from_onnx.model.external import load_onnx
from subpc.frontend.from_onnx.model.functions import without_own_functions
from subpc.frontend.from_onnx.model.half import widen
from subpc.frontend.from_onnx.model.order import sort_nodes
from subpc.frontend.from_onnx.model.supported import check_supported
from subpc.frontend.from_onnx.model.versions import at_known_opset
from subpc.frontend.messages import first_line, printable

_DTYPES = {
    onnx.TensorProto.FLOAT: "float32",
    onnx.TensorProto.INT64: "int64",
    onnx.TensorProto.INT32: "int32",
}
_DTYPES |= {
    onnx.TensorProto.BOOL: "bool",
    onnx.TensorProto.UINT8: "uint8",
    onnx.TensorProto.INT8: "int8",
}


def read_onnx(path: Path) -> onnx.ModelProto:
    """The model in `path`, well-formed, with operators and an opset that can be imported."""
    model = load_onnx(path)
    if not model.graph.node:
        raise ModelFileError(f"{path.name} is not an ONNX file, or holds no operators.")
    check_names(model.graph, path.name)
    model = without_own_functions(model)
    check_supported(model)
    check_parts(model, path.name)
    sort_nodes(model.graph)
    model = at_known_opset(model, path.name)
    try:
        checker.check_model(_with_output_shapes(model))
    except Exception as error:
        raise ModelFileError(
            f"{path.name} is not a valid ONNX model: {first_line(error)}"
        ) from error
    return widen(model)


def _with_output_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """For the checker, which insists on the shapes of outputs where every engine does without."""
    model = shape_inference.infer_shapes(model)
    for value in model.graph.output:
        if value.type.HasField("tensor_type") and not value.type.tensor_type.HasField("shape"):
            value.type.tensor_type.shape.SetInParent()
    return model


def input_dtype(value: onnx.ValueInfoProto) -> str:
    """The numpy name of the input's element type; UnsupportedModelError where compiled models do
    not take it."""
    element = value.type.tensor_type.elem_type
    if element not in _DTYPES:
        names = {number: name.lower() for name, number in onnx.TensorProto.DataType.items()}
        name = (
            names.get(element, f"of type {element}, which ONNX does not have")
            if element
            else "not a tensor"
        )
        raise UnsupportedModelError(
            f"Input {value.name!r} is {name}; compiled models take float32. Export the model in"
            " float32."
        )
    return _DTYPES[element]


def with_static_shapes(
    model: onnx.ModelProto, shapes: Sequence[tuple[int, ...]]
) -> onnx.ModelProto:
    """A copy of `model` for inputs of `shapes` (none: the model's own), with nothing else known
    yet."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    inputs = user_inputs(fixed.graph)
    if not inputs:
        raise UnsupportedModelError(
            "The model has no inputs, so there is nothing to compile it for."
        )
    if shapes and len(shapes) != len(inputs):
        names = ", ".join(printable(value.name) for value in inputs)
        raise ConfigError(
            f"The model has {len(inputs)} inputs ({names}), but {len(shapes)} shapes were given."
        )
    for value, shape in zip(inputs, shapes or [None] * len(inputs), strict=True):  # type: ignore[list-item]
        _fix_shape(value, shape)
    if shapes:
        _forget_shapes(fixed.graph)
    return fixed


def _fix_shape(value: onnx.ValueInfoProto, shape: tuple[int, ...] | None) -> None:
    tensor = value.type.tensor_type
    declared = [
        dim.dim_value if dim.dim_value > 0 else dim.dim_param or "?" for dim in tensor.shape.dim
    ]
    text = printable(",".join(map(str, declared)))
    if shape is None:
        if not tensor.HasField("shape") or not all(isinstance(n, int) for n in declared):
            raise ConfigError(
                f"Input {value.name!r} has the open shape {text or '?'}. Pass one, such as --shape"
                " 1,3,224,224."
            )
        return
    if 0 in shape:
        raise ConfigError(
            f"Input {value.name!r} of shape {','.join(map(str, shape))} has no elements; every"
            " dimension must be 1 or more."
        )
    if tensor.HasField("shape") and len(shape) != len(declared):
        raise ConfigError(
            f"Input {value.name!r} has {len(declared)} dimensions ({text}), but the shape {shape}"
            f" has {len(shape)}."
        )
    del tensor.shape.dim[:]
    for n in shape:
        tensor.shape.dim.add().dim_value = n


def _forget_shapes(graph: onnx.GraphProto) -> None:
    """Shapes written for another input shape would contradict the inferred ones."""
    del graph.value_info[:]
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")


_WINDOWS = ("Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool")


def check_channels(graph: onnx.GraphProto, shapes: Sequence[tuple[int, ...]]) -> None:
    """What ONNX's shape inference leaves out: that a convolution's input has the channels of its
    weights, and room for a window."""
    _check_windows(graph, shapes)
    known = value_shapes(graph) | {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type != "Conv" or not {*node.input[:2]} <= known.keys():
            continue
        groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
        has, takes = known[node.input[0]][1], known[node.input[1]][1] * groups
        if has != takes:
            raise wrong_shapes(f"{node_name(node)} takes {takes} channels, but gets {has}", shapes)


def _check_windows(graph: onnx.GraphProto, shapes: Sequence[tuple[int, ...]]) -> None:
    made = {name: node for node in graph.node if node.op_type in _WINDOWS for name in node.output}
    for value in (*graph.value_info, *graph.output):
        dims = [
            dim.dim_value for dim in value.type.tensor_type.shape.dim if dim.HasField("dim_value")
        ]
        if value.name in made and any(dim < 1 for dim in dims):
            raise wrong_shapes(
                f"{node_name(made[value.name])} needs a larger input, here its output is {dims}",
                shapes,
            )
