"""The object file of each distinct kernel: compiled once, in parallel, and kept."""

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol

import tvm

from subpc.errors import CompileError
from subpc.machine.target import Target
from subpc.passes.object_files import write_object
from subpc.progress import Progress, silent
from subpc.schedules.isa import VectorIsa
from subpc.schedules.kernel import Kernel, symbol_of
from subpc.text import last_line

# What a pool says of a process that crashed or hung: errors of the kernel, although they are
# OSErrors.
_OF_A_WORKER = (ChildProcessError, TimeoutError)


class Pool(Protocol):
    """Threads or processes that call a function: an Executor, or a CompilePool."""

    def submit(self, function: Callable[..., Any], /, *args: Any) -> "Future[Any]": ...


def compile_kernel(kernel: Kernel, isa: VectorIsa, target: dict[str, Any], path: Path) -> None:
    """Compile one kernel into the object file `path`.

    target: as TVM writes targets, because this is called in other processes, too.
    """
    symbol = symbol_of(kernel)
    write_object(kernel.prim_func(symbol, isa), symbol, tvm.target.Target(target), path)


class KernelObjects:
    """Object files in `folder`, made by `pool`. in_processes: whether the pool has processes."""

    def __init__(
        self, folder: Path, target: Target, pool: Pool, *, in_processes: bool = False
    ) -> None:
        self.folder, self.target = folder, target
        self._pool, self._in_processes = pool, in_processes
        self._known: set[Kernel] = set()

    def path(self, kernel: Kernel) -> Path:
        """The object file of a kernel."""
        return self.folder / f"{symbol_of(kernel)}.o"

    def compile(self, users: Mapping[Kernel, str], progress: Progress = silent) -> list[Path]:
        """The object files of kernels, of which the new ones are compiled.

        users: the first layer that calls each kernel.

        Raises:
            OSError: no space. CompileError: kernels do not compile, or their compiler crashed or
            hung; the message names the layers. What did compile is kept.
        """
        # The longest kernels first, so that none of them is left alone at the end.
        ordered = sorted(users, key=lambda kernel: -len(repr(kernel)))
        new = [kernel for kernel in ordered if kernel not in self._known]
        description = self.target.description()
        jobs = [(kernel, self._submit(kernel, description)) for kernel in new]
        failures = []
        for done, (kernel, job) in enumerate(jobs, 1):
            try:
                job.result()
                self._known.add(kernel)
            except Exception as error:
                if isinstance(error, OSError) and not isinstance(error, _OF_A_WORKER):
                    raise
                layer = f"layer {users[kernel]!r}: kernel {kernel.family}"
                failures.append(f"{layer} does not compile: {last_line(error, 300)}")
            progress("kernels", done, len(jobs))
        if failures:
            raise CompileError("; ".join(failures[:2]))
        return [self.path(kernel) for kernel in ordered]

    def _submit(self, kernel: Kernel, description: dict[str, Any]) -> "Future[None]":
        arguments = (kernel, self.target.isa, description, self.path(kernel))
        # In its processes, TVM ends where it writes some reductions of the fallback (argmax) out.
        if not self._in_processes or kernel.family != "fallback":
            job: Future[None] = self._pool.submit(compile_kernel, *arguments)
            return job
        here = Future[None]()
        try:
            compile_kernel(*arguments)
            here.set_result(None)
        except Exception as error:
            here.set_exception(error)
        return here
