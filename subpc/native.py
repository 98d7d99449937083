"""TVM's runtime through its C interface: load a library, call its functions, size its thread pool.

The runtime is two shared objects of together 6 MB. Its Python package is not imported: that would import torch when it is there
(one second, 200 MB) and need more packages when it is not.
"""

import ctypes
import functools
import importlib.util
import os
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path

from subpc.errors import CompileError, ModelFileError, SubpcError
from subpc.threads import native_threads, spread

# Type indices of tvm_ffi/c_api.h (TVMFFITypeIndex) and dlpack.h (DLDeviceType, DLDataTypeCode).
_INT, _DLTENSOR, _RAW_STR, _OBJECT_START = 1, 7, 8, 64
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
# "As many threads as asked, on the fast cores": the mode that config_threadpool takes for ordinary CPUs.
_BIG_CORES = 1


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
    """A reusable tensor argument: the shape is fixed, the memory that it points to changes from call to call."""

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
    """The argument list of one entry point, built once: tensors first, then the first and last step to run."""

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


class Library:
    """A loaded shared object; it stays loaded until the process ends, because its threads may still be inside it."""

    def __init__(self, path: Path) -> None:
        loader = _global("ffi.Module.load_from_file.so")
        name = str(path.resolve()).encode()  # the dynamic loader searches elsewhere for names without a slash
        try:
            self._module = _call(loader, [_string(name), _string(b"so")])
        except CompileError as error:
            raise ModelFileError(f"cannot load {path}: {error}") from error
        # The same library once more, for symbols that are not TVM's: its file may be gone when somebody asks for one.
        self.symbols = ctypes.CDLL(name.decode())

    def pointer(self, symbol: str) -> ctypes.c_void_p | None:
        """A pointer variable of the library, None if it has none of that name."""
        try:
            return ctypes.c_void_p.in_dll(self.symbols, symbol)
        except ValueError:
            return None

    def function(self, symbol: str) -> int:
        """The handle of an exported function."""
        query = AnyValue(type_index=1)
        query.type_index = 2  # bool: do not look into imported modules
        found = _call(_global("ffi.ModuleGetFunction"), [self._module, _string(symbol.encode()), query])
        if found.type_index < _OBJECT_START:
            raise ModelFileError(f"the library has no function {symbol!r} although its metadata lists it; compile the model again")
        return int(found.pointer)


def run(function: int, arguments: Arguments) -> None:
    """Call an entry point; other Python threads go on meanwhile."""
    result = AnyValue()
    if _runtime().TVMFFIFunctionCall(function, arguments.values, arguments.count, ctypes.byref(result)):
        raise _error()


_configured = threading.local()


def use_threads(count: int) -> None:
    """Size the calling thread's pool; TVM keeps one pool for each thread that calls."""
    if getattr(_configured, "lost", False):
        raise SubpcError(
            "this process was forked from one that had run a model, and its worker threads did not come along; "
            "run the first model after the fork, use threads=1 before it, or start processes with the spawn method"
        )
    if getattr(_configured, "count", None) != count:
        before = native_threads()
        _call(_global("runtime.config_threadpool"), [AnyValue(type_index=_INT), AnyValue(type_index=_INT)], [_BIG_CORES, count])
        _configured.workers = native_threads() - before
        spread_workers()
        got = _call(_global("runtime.NumThreads"), []).integer
        if got < count:
            warnings.warn(f"TVM started a pool of {got} threads before subpc was imported; import subpc first", stacklevel=2)
        _configured.count = count


def spread_workers() -> None:
    """Move the calling thread's workers to CPUs of their own once more: other programs may have pushed them together."""
    spread(getattr(_configured, "workers", set()))


def _forked() -> None:
    # The copied pool would wait for its workers forever. A pool of one never asks them.
    _configured.lost = getattr(_configured, "count", 1) > 1


os.register_at_fork(after_in_child=_forked)


def runtime_folders() -> tuple[Path, Path]:
    """Where libtvm_ffi.so and libtvm_runtime.so are, found without importing the packages that own them."""
    folders = []
    for package in ("tvm_ffi", "tvm"):
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise SubpcError("TVM's runtime is not installed; install it with: pip install --no-deps apache-tvm apache-tvm-ffi")
        folders.append(Path(spec.origin).parent / "lib")
    return folders[0], folders[1]


@functools.lru_cache(maxsize=1)
def _runtime() -> ctypes.CDLL:
    ffi_folder, runtime_folder = runtime_folders()
    try:
        library = ctypes.CDLL(str(ffi_folder / "libtvm_ffi.so"), ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(runtime_folder / "libtvm_runtime.so"), ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise SubpcError(f"TVM's runtime cannot be loaded ({error}); install again: pip install apache-tvm apache-tvm-ffi") from error
    library.TVMFFIFunctionCall.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32, ctypes.c_void_p]
    return library


@functools.lru_cache(maxsize=8)
def _global(name: str) -> int:
    handle = ctypes.c_void_p()
    key = _Bytes(name.encode(), len(name))
    if _runtime().TVMFFIFunctionGetGlobal(ctypes.byref(key), ctypes.byref(handle)):
        raise _error()
    if not handle.value:
        raise SubpcError(f"this TVM runtime has no {name!r}; subpc needs apache-tvm 0.27")
    return handle.value


def _string(text: bytes) -> AnyValue:
    value = AnyValue(type_index=_RAW_STR)
    # The bytes object has to outlive the call; ctypes keeps it alive only with the structure that owns the pointer.
    value.owner = buffer = ctypes.create_string_buffer(text)
    value.pointer = ctypes.addressof(buffer)
    return value


def _call(function: int, values: list[AnyValue], integers: Sequence[int] = ()) -> AnyValue:
    for value, integer in zip(values, integers, strict=False):
        value.integer = integer
    arguments = (AnyValue * len(values))(*values)
    result = AnyValue()
    if _runtime().TVMFFIFunctionCall(function, arguments, len(values), ctypes.byref(result)):
        raise _error()
    return result


def _error() -> CompileError:
    handle = ctypes.c_void_p()
    _runtime().TVMFFIErrorMoveFromRaised(ctypes.byref(handle))
    if not handle.value:
        return CompileError("the native code failed without a message")
    error = _ErrorObject.from_address(handle.value)
    message = ctypes.string_at(error.message.data, error.message.size).decode(errors="replace")
    _runtime().TVMFFIObjectDecRef(handle)
    return CompileError(message)
