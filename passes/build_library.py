"""From programs to native code: each distinct kernel becomes one object file, in parallel, and one entry point calls them."""

import errno
import os
import resource
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import tvm

from subpc.errors import CompileError
from subpc.passes.emit_main import emit_main
from subpc.passes.plan_memory import plan_memory
from subpc.passes.program import Program
from subpc.passes.traffic import operand_bytes
from subpc.schedules.isa import VectorIsa
from subpc.schedules.kernel import Kernel, symbol_of

# Where the kernel shows a process its open files by number.
_DESCRIPTORS = "/proc/self/fd"
# LLVM ends the process at a limit on the size of files, in memory too. No kernel and no entry point comes near this.
_LARGEST_OBJECT = 8 << 20


@dataclass(frozen=True, kw_only=True)
class BuiltLibrary:
    """Object files to be linked, and what each entry point needs. workspace_floats, offsets (of its buffers): one entry a program.

    operand_bytes: the size of each operand, by kernel.
    """

    objects: tuple[Path, ...]
    symbols: tuple[str, ...]
    workspace_floats: tuple[int, ...]
    offsets: tuple[list[int], ...]
    operand_bytes: dict[Kernel, tuple[int, ...]]


def build_library(
    programs: Sequence[Program],
    *,
    weight_floats: int,
    target: tvm.target.Target,
    isa: VectorIsa,
    folder: Path,
    workers: int,
    progress: Callable[[str, int, int], None] | None = None,
) -> BuiltLibrary:
    """Compile every distinct kernel once, and an entry point `subpc_main_<i>` for each program.

    Raises:
        CompileError: a kernel does not compile; the message names the first layer that uses it.
    """
    users: dict[Kernel, str] = {}
    for program in programs:
        for step in program.calls:
            users.setdefault(step.kernel, step.layer)
    symbols = tuple(f"subpc_main_{i}" for i in range(len(programs)))
    plans = [plan_memory(program) for program in programs]

    def compile_kernel(kernel: Kernel) -> tuple[Path, tuple[int, ...]]:
        symbol = symbol_of(kernel)
        try:
            function = kernel.prim_func(symbol, isa)
            return write_object(function, symbol, target, folder / f"{symbol}.o"), operand_bytes(function)
        except OSError:
            raise
        except Exception as error:
            raise CompileError(f"layer {users[kernel]!r}: kernel {kernel.family} does not compile: {_first_line(error)}") from error

    objects, sizes = [], {}
    with ThreadPoolExecutor(workers) as pool:
        # The longest kernels first, so that none of them is left alone at the end.
        ordered = sorted(users, key=lambda kernel: -len(repr(kernel)))
        for done, (path, bytes_) in enumerate(pool.map(compile_kernel, ordered), 1):
            objects.append(path)
            sizes[ordered[done - 1]] = bytes_
            if progress is not None:
                progress("kernels", done, len(ordered))
    for program, symbol, (offsets, floats) in zip(programs, symbols, plans, strict=True):
        main = emit_main(program, symbol, offsets, floats, weight_floats)
        objects.append(write_object(main, symbol, target, folder / f"{symbol}.o"))
    return BuiltLibrary(
        objects=tuple(objects),
        symbols=symbols,
        workspace_floats=tuple(floats for _, floats in plans),
        offsets=tuple(offsets for offsets, _ in plans),
        operand_bytes=sizes,
    )


def write_object(function: tvm.tirx.PrimFunc, symbol: str, target: tvm.target.Target, path: Path) -> Path:
    """Compile one function into an object file."""
    return write_module(tvm.IRModule({symbol: function}), target, path)


def write_module(module: tvm.IRModule, target: tvm.target.Target, path: Path) -> Path:
    """Compile a module into an object file; OSError where there is no space for it."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if limit != resource.RLIM_INFINITY and limit < _LARGEST_OBJECT:
        raise OSError(errno.EFBIG, f"files of {limit >> 10} KiB are allowed (ulimit -f), {_LARGEST_OBJECT >> 10} are needed")
    compiled = tvm.tirx.build(module, target=target)
    if not hasattr(os, "memfd_create") or not os.path.isdir(_DESCRIPTORS):
        compiled.write_to_file(str(path))
        return path
    # LLVM ends the whole process when it cannot write a file: it writes into memory, and Python writes the file.
    descriptor = os.memfd_create(path.name, os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "rb") as memory:
        compiled.write_to_file(f"{_DESCRIPTORS}/{descriptor}", "o")
        with path.open("wb") as file:
            shutil.copyfileobj(memory, file)
    return path


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
