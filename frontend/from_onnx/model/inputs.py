"""What an ONNX file says of its inputs."""

from pathlib import Path

import onnx

from subpc.errors import ModelFileError
from subpc.frontend.from_onnx.graph import user_inputs
from subpc.frontend.input_shapes import Input
from subpc.frontend.messages import first_line


def onnx_inputs(path: Path) -> list[Input]:
    """The inputs that a caller gives, in order; ModelFileError for a file that is no ONNX model."""
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:
        raise ModelFileError(f"{path.name} is not an ONNX file, or is damaged: {first_line(error)}") from error
    return [_input(value) for value in user_inputs(model.graph)]


def _input(value: onnx.ValueInfoProto) -> Input:
    tensor = value.type.tensor_type
    shape = tuple(dim.dim_value if dim.dim_value > 0 else dim.dim_param or "?" for dim in tensor.shape.dim)
    element = onnx.TensorProto.DataType.Name(tensor.elem_type).lower() if tensor.elem_type in _KNOWN else ""
    return Input(name=value.name, shape=shape if tensor.HasField("shape") else None, dtype="float32" if element == "float" else element)


_KNOWN = set(onnx.TensorProto.DataType.values())
