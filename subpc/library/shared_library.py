"""Native code from memory to callable functions, and back out of the process when nothing uses it
any more.

The dynamic loader opens files by path, and takes a path or a file that it has seen before for the
library that it already has. So code is given to it as a file in memory that no other process can
reach, under a path that is spelled in a way that was never used before.
"""

import ctypes
import itertools
import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from subpc.errors import ModelFileError, SubpcError
from subpc.machine import native
from subpc.machine.worker_pool import launcher
from subpc.scratch import scratch_folder

# Generated code calls these through pointers that TVM declares in each library that needs them, to
# be filled by whoever loads it.
LAUNCHER = "__TVMBackendParallelLaunch"
_FROM_RUNTIME = (
    "TVMBackendAllocWorkspace",
    "TVMBackendFreeWorkspace",
    "TVMFFIEnvModLookupFromImports",
    "TVMFFIErrorSetRaisedFromCStr",
    "TVMFFIFunctionCall",
    "TVMFFIHandleInitOnce",
)
# What TVM puts before the name of a function that takes its calling convention.
_PREFIX = "__tvm_ffi_"
_SPELLINGS = 32

_count = itertools.count()
# A fork waits until no thread is inside the dynamic loader: the child would inherit the loader's
# own lock, held by a thread that it lacks. Reentrant, because the collector may unload a library
# while another is loaded.
_loading = threading.RLock()
os.register_at_fork(
    before=_loading.acquire, after_in_parent=_loading.release, after_in_child=_loading.release
)

Code: TypeAlias = bytes | memoryview


class Library:
    """A loaded shared object; each has an image of its own, which is unloaded with the last
    reference to it."""

    def __init__(self, code: Code, name: str) -> None:
        """Load `code`, an ELF shared object; `name` is for messages. Raises ModelFileError where it
        cannot be loaded."""
        native.runtime()
        self.name = name
        self.symbols = _load(code, name)
        # Not at the interpreter's end: other threads may still be inside.
        weakref.finalize(self, _unload, self.symbols._handle).atexit = False
        self._fill(LAUNCHER, launcher())
        for symbol in _FROM_RUNTIME:
            self._fill(f"__{symbol}", native.runtime_address(symbol))

    @classmethod
    def from_file(cls, path: Path) -> "Library":
        """Load a shared object that this process has written."""
        return cls(path.read_bytes(), path.name)

    def _fill(self, symbol: str, address: int) -> None:
        if (pointer := self.pointer(symbol)) is not None:
            pointer.value = address

    def pointer(self, symbol: str) -> ctypes.c_void_p | None:
        """A pointer variable of the library, None if it has none of that name."""
        try:
            return ctypes.c_void_p.in_dll(self.symbols, symbol)
        except ValueError:
            return None

    def function(self, symbol: str) -> int:
        """The address of an entry point."""
        try:
            found = ctypes.cast(self.symbols[_PREFIX + symbol], ctypes.c_void_p).value
        except (AttributeError, ValueError):  # ValueError: a name with a null character
            found = None
        if not found:
            raise ModelFileError(
                f"{self.name} has no function {symbol!r} although its metadata lists it; compile"
                " the model again"
            )
        return found


def _load(code: Code, name: str) -> ctypes.CDLL:
    reasons = []
    for place in (_memory_file, _temporary_file):
        try:
            with place(code) as path, _loading:
                return ctypes.CDLL(path)
        except (OSError, SubpcError) as error:
            reasons.append(str(error))
    raise ModelFileError(f"cannot load {name}: {'; '.join(dict.fromkeys(reasons))[:400]}")


@contextmanager
def _memory_file(code: Code) -> Iterator[str]:
    descriptor = os.memfd_create("subpc", os.MFD_CLOEXEC)
    with open(descriptor, "wb", buffering=0) as file:
        _write(file.fileno(), code)
        yield f"/proc/self/fd{_spelling(next(_count))}{descriptor}"


@contextmanager
def _temporary_file(code: Code) -> Iterator[str]:
    """Where the kernel has no files in memory, or /proc is not mounted: a file that is there for
    the moment of loading.

    In a folder of its own, which the next run removes should this one be killed meanwhile.
    """
    with scratch_folder("load") as folder:
        path = folder / "code.so"
        with path.open("wb", buffering=0) as file:
            _write(file.fileno(), code)
        yield str(path)


def _write(descriptor: int, code: Code) -> None:
    with memoryview(code) as view:
        done = 0
        while done < len(view):
            done += os.write(descriptor, view[done:])


def _spelling(number: int) -> str:
    """A way to write one slash: a different one for each number below 2 ** 32."""
    return "".join("/." if number >> bit & 1 else "/" for bit in range(_SPELLINGS)) + "/"


def _unload(handle: int) -> None:
    close = ctypes.CDLL(None).dlclose
    close.argtypes = [ctypes.c_void_p]
    with _loading:
        close(handle)
