"""TVM's runtime through its C interface: the arguments of a library's entry points, calls, and
errors.

The runtime is two shared objects of together 6 MB. Its Python package is not imported: that would
import torch when it is there (one second, 200 MB) and need more packages when it is not.
"""

import ctypes
import functools
import importlib.util
from collections.abc import Sequence
from pathlib import Path

from subpc.errors import CompileError, SubpcError
from subpc.machine.worker_pool import worker_pool

# Type indices of tvm_ffi/c_api.h (TVMFFITypeIndex) and dlpack.h (DLDeviceType, DLDataTypeCode).
_INT, _DLTENSOR = 1, 7
_CPU = 1
_DTYPES = {
    "float32": (2, 32),
    "float64": (2, 64),
    "int8": (0, 8),
    "uint8": (1, 8),
    "int32": (0, 32),
    "int64": (0, 64),
    "bool": (6, 8),
}


class DLTensor(ctypes.Structure):
    """dlpack.h: a pointer with shape and type."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("byte_offset", ctypes.c_uint64),
    )


class _Value(ctypes.Union):
    _fields_ = (("integer", ctypes.c_int64), ("pointer", ctypes.c_void_p))


class AnyValue(ctypes.Structure):
    """tvm_ffi/c_api.h TVMFFIAny: one argument or result."""

    _anonymous_ = ("value",)
    _fields_ = (("type_index", ctypes.c_int32), ("padding", ctypes.c_uint32), ("value", _Value))


class _Bytes(ctypes.Structure):
    _fields_ = (("data", ctypes.c_char_p), ("size", ctypes.c_size_t))


class _ErrorObject(ctypes.Structure):
    # 24 bytes of object header (reference counts, type index, deleter), then kind, message, ...
    _fields_ = (("header", ctypes.c_uint64 * 3), ("kind", _Bytes), ("message", _Bytes))


class Tensor:
    """A reusable tensor argument: the shape is fixed, the memory that it points to changes from
    call to call."""

    def __init__(self, shape: Sequence[int], dtype: str) -> None:
        code, bits = _DTYPES[dtype]
        self._dims = (ctypes.c_int64 * max(1, len(shape)))(*shape)
        self._strides = (ctypes.c_int64 * max(1, len(shape)))(*_strides(shape))
        self.struct = DLTensor(None, _CPU, 0, len(shape), code, bits, 1)
        self.struct.shape = ctypes.addressof(self._dims)
        self.struct.strides = ctypes.addressof(self._strides)


def _strides(shape: Sequence[int]) -> list[int]:
    strides = [1] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        strides[axis] = strides[axis + 1] * shape[axis + 1]
    return strides


class Arguments:
    """The argument list of one entry point, built once: tensors first, then the first and last step
    to run."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._tensors = list(tensors)
        self.count = len(tensors) + 2
        self.values = (AnyValue * self.count)()
        for value, tensor in zip(self.values, self._tensors, strict=False):
            value.type_index = _DLTENSOR
            value.pointer = ctypes.addressof(tensor.struct)
        self.values[self.count - 2].type_index = self.values[self.count - 1].type_index = _INT

    def point(self, index: int, address: int) -> None:
        """Let tensor `index` use the memory at `address`."""
        self._tensors[index].struct.data = address

    def steps(self, first: int, last: int) -> None:
        """Run the steps [first, last)."""
        self.values[self.count - 2].integer, self.values[self.count - 1].integer = first, last


def run(function: int, arguments: Arguments, threads: int) -> None:
    """Call an entry point on so many threads; other Python threads go on meanwhile."""
    result = AnyValue()
    if worker_pool().subpc_call(
        function, arguments.values, arguments.count, ctypes.byref(result), threads
    ):
        raise _error()


def runtime_folders() -> tuple[Path, Path]:
    """Where libtvm_ffi.so and libtvm_runtime.so are, found without importing the packages that own
    them."""
    folders = []
    for package in ("tvm_ffi", "tvm"):
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise SubpcError(
                "TVM's runtime is not installed; install it with: pip install --no-deps apache-tvm"
                " apache-tvm-ffi"
            )
        folders.append(Path(spec.origin).parent / "lib")
    return folders[0], folders[1]


@functools.lru_cache(maxsize=1)
def runtime() -> ctypes.CDLL:
    """TVM's runtime, whose symbols every library loaded later can use."""
    ffi_folder, runtime_folder = runtime_folders()
    try:
        library = ctypes.CDLL(str(ffi_folder / "libtvm_ffi.so"), ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(runtime_folder / "libtvm_runtime.so"), ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise SubpcError(
            f"TVM's runtime cannot be loaded ({error}); install again: pip install apache-tvm"
            " apache-tvm-ffi"
        ) from error
    return library


@functools.cache
def runtime_address(symbol: str) -> int:
    """Where one of the runtime's functions is; it stays there."""
    runtime()
    return int(ctypes.cast(ctypes.CDLL(None)[symbol], ctypes.c_void_p).value or 0)


def _error() -> CompileError:
    handle = ctypes.c_void_p()
    runtime().TVMFFIErrorMoveFromRaised(ctypes.byref(handle))
    if not handle.value:
        return CompileError("the native code failed without a message")
    error = _ErrorObject.from_address(handle.value)
    message = ctypes.string_at(error.message.data, error.message.size).decode(errors="replace")
    runtime().TVMFFIObjectDecRef(handle)
    return CompileError(message)
