"""Candidates from schedules to libraries with entry points that time their steps.

Kernels are compiled in processes, each once: one that crashes or hangs its compiler ends there.
"""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from subpc.machine.target import Target
from subpc.tuning.measure import Measured

if TYPE_CHECKING:
    from subpc.passes.pipeline import Rewritten
    from subpc.schedules.workload import Choice

COMPILE_SECONDS = 120.0


class Builder:
    """Compiles and links candidates of one network in a folder; objects are kept and used again."""

    def __init__(self, model: "Rewritten", target: Target, folder: Path, workers: int) -> None:
        from subpc.passes.compile_pool import CompilePool
        from subpc.passes.kernel_objects import KernelObjects

        self._lock = threading.Lock()
        self.model, self.target, self.folder = model, target, folder
        self._pool = CompilePool(workers, COMPILE_SECONDS)
        self.objects = KernelObjects(folder, target, self._pool, in_processes=True)
        self._libraries = 0

    def build(self, choices: "Mapping[str, Choice]") -> Measured:
        """A library of the whole network with these schedules, by layer name.

        Raises:
            CompileError: a kernel does not compile, or its compiler crashed or hung.
        """
        with self._lock:
            return self._build(choices)

    def _build(self, choices: "Mapping[str, Choice]") -> Measured:
        from subpc.passes.emit_library import emit_library
        from subpc.passes.pipeline import lower_model
        from subpc.passes.program import WeightStore

        weights = WeightStore()
        isa = self.target.isa
        program = lower_model(self.model, isa=isa, weights=weights, choices=choices).program
        self._libraries += 1
        path = self.folder / f"candidate-{self._libraries}.so"
        emitted = emit_library([program], weights, path, objects=self.objects, timed=True)
        np.save(path.with_suffix(".npy"), emitted.weights)
        (entry,) = emitted.entries
        return Measured(
            library=path,
            weights=path.with_suffix(".npy"),
            symbol=entry.symbol,
            inputs=tuple(program.inputs),
            outputs=tuple(program.outputs),
            workspace=entry.plan.floats,
            layers=tuple(step.layer for step in program.steps),
            joined=tuple(step.layer for step in program.steps if step.joined),
        )

    def discard(self, library: Measured) -> None:
        """Remove a library that is not needed any more."""
        library.library.unlink(missing_ok=True)
        library.weights.unlink(missing_ok=True)

    def close(self) -> None:
        """End the worker processes."""
        self._pool.close()
