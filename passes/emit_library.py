"""From programs to a shared object: memory planned, kernels and entry points compiled, all
linked."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from subpc.machine.linker import link
from subpc.passes.emit_main import emit_main
from subpc.passes.kernel_objects import KernelObjects
from subpc.passes.object_files import write_object
from subpc.passes.plan_memory import MemoryPlan, plan_memory
from subpc.passes.program import Program, WeightStore
from subpc.progress import Progress, silent
from subpc.schedules.kernel import Kernel


@dataclass(frozen=True, kw_only=True)
class EntryPoint:
    """A function of the library: one program. plan: of its workspace."""

    symbol: str
    plan: MemoryPlan


@dataclass(frozen=True, kw_only=True)
class EmittedLibrary:
    """A shared object, the weights that all its entry points take, and one of those a program.

    weights: (floats,).
    """

    path: Path
    weights: np.ndarray
    entries: tuple[EntryPoint, ...]


def emit_library(
    programs: Sequence[Program],
    weights: WeightStore,
    path: Path,
    *,
    objects: KernelObjects,
    symbol: str = "subpc_main",
    timed: bool = False,
    progress: Progress = silent,
) -> EmittedLibrary:
    """Compile every distinct kernel once and an entry point `symbol_<i>` for program i; link them.

    Args:
        path: the shared object to write, in the folder of `objects`.
        timed: the entry points take one more tensor and write the time of each step there.

    Raises:
        OSError: no space. CompileError: a kernel does not compile (the message names the first
        layer that uses it), or the linker failed.
    """
    users: dict[Kernel, str] = {}
    for program in programs:
        for step in program.calls:
            users.setdefault(step.kernel, step.layer)
    kernels = objects.compile(users, progress)
    blob = weights.blob()
    entries, mains = [], []
    for index, program in enumerate(programs):
        entry = EntryPoint(symbol=f"{symbol}_{index}", plan=plan_memory(program))
        main = emit_main(program, entry.symbol, entry.plan, blob.size, timed=timed)
        file = path.with_suffix(f".{index}.o")
        mains.append(write_object(main, entry.symbol, objects.target.tvm_target(), file))
        entries.append(entry)
    link([*kernels, *mains], path)
    for file in mains:
        file.unlink()
    return EmittedLibrary(
        path=path,
        weights=blob,
        entries=tuple(entries),
    )
