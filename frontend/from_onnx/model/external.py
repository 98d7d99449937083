"""An .onnx file with the weights that lie beside it: nothing is read that the model has no use
for."""

import math
from pathlib import Path

import onnx
from onnx import TensorProto, external_data_helper, helper

from subpc.errors import ModelFileError
from subpc.frontend.from_onnx.model.infer import MAX_ELEMENTS
from subpc.frontend.messages import first_line, printable

# Tied weights may share bytes of a file; more than this is made of thin air.
_MAX_SHARING = 8
# Bits of the elements of which several are in a byte.
_PACKED = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}


def load_onnx(path: Path) -> onnx.ModelProto:
    """The model with all of its weights; ModelFileError where it, or a file that it names, cannot
    be read."""
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:
        raise ModelFileError(
            f"{path.name} is not an ONNX file, or is damaged: {first_line(error)}"
        ) from error
    outside = [
        tensor
        for tensor in external_data_helper._get_all_tensors(model)
        if external_data_helper.uses_external_data(tensor)
    ]
    if outside:
        _check_sizes(outside, path)
        try:
            external_data_helper.load_external_data_for_model(model, str(path.parent))
        except Exception as error:
            raise ModelFileError(
                f"{path.name} has weights in another file, which cannot be read:"
                f" {first_line(error)}"
            ) from error
    return model


def _check_sizes(tensors: list[TensorProto], path: Path) -> None:
    """Each tensor reads as much as its shape says, and all together no more than the files hold a
    few times."""
    wanted, files = 0, dict[str, int]()
    for tensor in tensors:
        count, entries = (
            math.prod(tensor.dims),
            {entry.key: entry.value for entry in tensor.external_data},
        )
        if not 0 <= count <= MAX_ELEMENTS or min(tensor.dims, default=0) < 0:
            raise ModelFileError(
                f"Weight {printable(tensor.name)!r} has {count} elements; at most {MAX_ELEMENTS}"
                " are accepted."
            )
        size = tensor_bytes(tensor)
        if entries.setdefault("length", str(size)) != str(size):
            raise ModelFileError(
                f"Weight {printable(tensor.name)!r} of shape {list(tensor.dims)} takes {size}"
                f" bytes, but {printable(entries['length'])} of another file are given."
            )
        if not any(entry.key == "length" for entry in tensor.external_data):
            tensor.external_data.add(key="length", value=str(size))
        location = entries.get("location", "")
        try:
            beside = path.parent / location
            files[location] = beside.stat().st_size if beside.is_file() else 0
        except (OSError, ValueError):
            continue
        wanted += size if files[location] else 0  # the reader has the words for what is no file
    if wanted > _MAX_SHARING * sum(files.values()):
        raise ModelFileError(
            f"{path.name} reads {wanted} bytes from files that hold {sum(files.values())}; at most"
            f" {_MAX_SHARING} times as many."
        )


def tensor_bytes(tensor: TensorProto) -> int:
    """How long a tensor's raw data has to be; ModelFileError for an element type that ONNX does not
    have."""
    try:
        bits = _PACKED.get(TensorProto.DataType.Name(tensor.data_type)) or 8 * int(
            helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        )
    except (KeyError, ValueError) as error:
        raise ModelFileError(
            f"Weight {printable(tensor.name)!r} has elements of type {tensor.data_type}, which ONNX"
            " does not have."
        ) from error
    return int(-(-math.prod(tensor.dims) * bits // 8))
