"""What an ONNX file says of its inputs."""

import onnx

from subpc.frontend.from_onnx.graph import user_inputs
from subpc.frontend.input_shapes import Input


def described_inputs(model: onnx.ModelProto) -> list[Input]:
    """The inputs that a caller gives, in order."""
    return [_input(value) for value in user_inputs(model.graph)]


def _input(value: onnx.ValueInfoProto) -> Input:
    tensor = value.type.tensor_type
    shape = tuple(
        dim.dim_value if dim.dim_value > 0 else dim.dim_param or "?" for dim in tensor.shape.dim
    )
    element = (
        onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
        if tensor.elem_type in _KNOWN
        else ""
    )
    return Input(
        name=value.name,
        shape=shape if tensor.HasField("shape") else None,
        dtype="float32" if element == "float" else element,
    )


_KNOWN = set(onnx.TensorProto.DataType.values())
