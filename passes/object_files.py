"""Object files: a function or a module of TIR compiled by LLVM, and a library of a few of them."""

import errno
import os
import resource
import shutil
from collections.abc import Sequence
from pathlib import Path

import tvm

from subpc.machine.linker import link

# Where the kernel shows a process its open files by number.
_DESCRIPTORS = "/proc/self/fd"
# LLVM ends the process at a limit on the size of files, in memory too. No kernel and no entry point
# comes near this.
_LARGEST_OBJECT = 8 << 20


def write_object(
    function: tvm.tirx.PrimFunc, symbol: str, target: tvm.target.Target, path: Path
) -> Path:
    """Compile one function into an object file."""
    return write_module(tvm.IRModule({symbol: function}), target, path)


def write_module(module: tvm.IRModule, target: tvm.target.Target, path: Path) -> Path:
    """Compile a module into an object file; OSError where there is no space for it."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if limit != resource.RLIM_INFINITY and limit < _LARGEST_OBJECT:
        allowed, needed = limit >> 10, _LARGEST_OBJECT >> 10
        raise OSError(
            errno.EFBIG, f"files of {allowed} KiB are allowed (ulimit -f), {needed} are needed"
        )
    compiled = tvm.tirx.build(module, target=target)
    if not hasattr(os, "memfd_create") or not os.path.isdir(_DESCRIPTORS):
        compiled.write_to_file(str(path))
        return path
    # LLVM ends the whole process when it cannot write a file: it writes into memory, and Python
    # writes the file.
    descriptor = os.memfd_create(path.name, os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "rb") as memory:
        compiled.write_to_file(f"{_DESCRIPTORS}/{descriptor}", "o")
        with path.open("wb") as file:
            shutil.copyfileobj(memory, file)
    return path


def link_modules(modules: Sequence[tvm.IRModule], target: tvm.target.Target, library: Path) -> Path:
    """A shared object of modules that belong to no network, such as probes of a machine.

    Raises:
        OSError: no space. CompileError: the linker failed.
    """
    objects = [library.with_suffix(f".{index}.o") for index in range(len(modules))]
    for module, path in zip(modules, objects, strict=True):
        write_module(module, target, path)
    link(objects, library)
    for path in objects:
        path.unlink()
    return library
