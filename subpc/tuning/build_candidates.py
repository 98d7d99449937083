"""Candidates from schedules to libraries: kernels are compiled in parallel processes, each once, and linked with a timed entry point."""

import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from subpc.errors import CompileError
from subpc.machine.linker import link
from subpc.machine.target import Target
from subpc.tuning.measure import Measured

if TYPE_CHECKING:
    from subpc.passes.pipeline import Rewritten
    from subpc.schedules.isa import VectorIsa
    from subpc.schedules.kernel import Kernel
    from subpc.schedules.workload import Choice

COMPILE_SECONDS = 120.0
SYMBOL = "subpc_timed_main"


def compile_object(kernel: "Kernel", isa: "VectorIsa", target: dict[str, Any], path: Path) -> None:
    """Compile one kernel in a worker process; the file appears whole."""
    import tvm

    from subpc.passes.build_library import write_object
    from subpc.schedules.kernel import symbol_of

    symbol = symbol_of(kernel)
    write_object(kernel.prim_func(symbol, isa), symbol, tvm.target.Target(target), path)


class Builder:
    """Compiles and links candidates of one network in a folder; objects are kept and used again."""

    def __init__(self, model: "Rewritten", target: Target, folder: Path, workers: int) -> None:
        from subpc.passes.compile_pool import CompilePool

        self._lock = threading.Lock()
        self.model, self.target, self.folder = model, target, folder
        self._pool = CompilePool(workers, COMPILE_SECONDS)
        self._known: set[Kernel] = set()
        self._libraries = 0

    def build(self, choices: "Mapping[str, Choice]") -> Measured:
        """A library of the whole network with these schedules, by layer name.

        Raises:
            CompileError: a kernel does not compile, or its compiler crashed or hung.
        """
        with self._lock:
            return self._build(choices)

    def _build(self, choices: "Mapping[str, Choice]") -> Measured:
        from subpc.passes.build_library import write_object
        from subpc.passes.emit_main import emit_main
        from subpc.passes.pipeline import lower_model
        from subpc.passes.plan_memory import plan_memory
        from subpc.passes.program import WeightStore

        weights = WeightStore()
        program = lower_model(self.model, isa=self.target.isa, weights=weights, choices=choices).program
        self.compile(step.kernel for step in program.calls)
        blob, (offsets, floats), self._libraries = weights.blob(), plan_memory(program), self._libraries + 1
        stem = self.folder / f"candidate-{self._libraries}"
        main = emit_main(program, SYMBOL, offsets, floats, blob.size, timed=True)
        write_object(main, SYMBOL, self.target.tvm_target(), stem.with_suffix(".o"))
        link([*dict.fromkeys(self._path(step.kernel) for step in program.calls), stem.with_suffix(".o")], stem.with_suffix(".so"))
        np.save(stem.with_suffix(".npy"), blob)
        stem.with_suffix(".o").unlink()
        return Measured(
            library=stem.with_suffix(".so"),
            weights=stem.with_suffix(".npy"),
            symbol=SYMBOL,
            inputs=tuple(program.inputs),
            outputs=tuple(program.outputs),
            workspace=floats,
            layers=tuple(step.layer for step in program.steps),
            joined=tuple(step.layer for step in program.steps if step.joined),
        )

    def compile(self, kernels: "Iterable[Kernel]") -> None:
        """Compile those kernels that are new, in parallel."""
        new = [kernel for kernel in dict.fromkeys(kernels) if kernel not in self._known]
        target = self.target.description()
        jobs: list[tuple[Kernel, Future[None]]] = [(kernel, self._submit(kernel, target)) for kernel in new]
        failures = []
        for kernel, job in jobs:
            try:
                job.result()
                self._known.add(kernel)
            except Exception as error:
                lines = str(error).strip().splitlines()
                failures.append(f"{kernel.family}: {lines[-1][:200] if lines else type(error).__name__}")
        if failures:
            raise CompileError("; ".join(failures[:2]))

    def _submit(self, kernel: "Kernel", target: dict[str, Any]) -> "Future[None]":
        """Compile in a worker; what has no schedule here, because TVM ends the process where it writes some reductions (argmax) out."""
        arguments = (kernel, self.target.isa, target, self._path(kernel))
        if kernel.family != "fallback":
            job: Future[None] = self._pool.submit(compile_object, *arguments)
            return job
        done = Future[None]()
        try:
            compile_object(*arguments)
            done.set_result(None)
        except Exception as error:
            done.set_exception(error)
        return done

    def _path(self, kernel: "Kernel") -> Path:
        from subpc.schedules.kernel import symbol_of

        return self.folder / f"{symbol_of(kernel)}.o"

    def discard(self, library: Measured) -> None:
        """Remove a library that is not needed any more."""
        library.library.unlink(missing_ok=True)
        library.weights.unlink(missing_ok=True)

    def close(self) -> None:
        """End the worker processes."""
        self._pool.close()
