"""Compiles the code that a profile measures with, in a process of its own: the one that profiles
stays without compiler and PyTorch.

python -m subpc.profiling.build_probes OUTPUT.so TARGET THREADS

prints the facts that the caller needs, as one JSON object.
"""

import json
import sys
from pathlib import Path

from subpc.errors import SubpcError

FMA, CACHE, MEMORY = "subpc_probe_fma", "subpc_probe_cache", "subpc_probe_memory"
BYTES = "subpc_probe_bytes"  # where the target has such instructions
# Long enough that starting the threads does not count, short enough to be repeated: some
# milliseconds.
FMA_ROUNDS, CACHE_ROUNDS = 200_000, 200
# Half of a small L2 cache for each worker; memory: more than caches hold, all workers together.
CACHE_FLOATS, MEMORY_FLOATS = 3 << 14, 3 << 24


def build(output: Path, target_text: str, threads: int) -> dict[str, int]:
    """Write the library; returns operations, bytes and sizes of its kernels."""
    import tvm

    from subpc.machine.target import parse_target
    from subpc.passes.object_files import link_modules
    from subpc.schedules.kernel import Kernel
    from subpc.schedules.launch_clock import launch_clock
    from subpc.schedules.peak import PeakMultiplyAdd, PeakMultiplyBytes, PeakRead

    target = parse_target(target_text)
    fma = PeakMultiplyAdd(workers=threads, rounds=FMA_ROUNDS, lanes=target.isa.lanes)
    cache = PeakRead(workers=threads, floats=CACHE_FLOATS, rounds=CACHE_ROUNDS)
    memory = PeakRead(workers=threads, floats=MEMORY_FLOATS // threads, rounds=1)
    kernels: dict[str, Kernel] = {FMA: fma, CACHE: cache, MEMORY: memory}
    if target.isa.dot:
        kernels[BYTES] = PeakMultiplyBytes(workers=threads, rounds=FMA_ROUNDS, isa=target.isa)
    modules = [
        tvm.IRModule({symbol: kernel.prim_func(symbol, target.isa)})
        for symbol, kernel in kernels.items()
    ]
    link_modules([*modules, launch_clock()], target.tvm_target(), output)
    facts = {"lanes": target.isa.lanes, "operations": fma.flops, "vector_floats": fma.vector_floats}
    return facts | {
        "byte_operations": kernels[BYTES].flops if BYTES in kernels else 0,
        "cache_bytes": cache.bytes,
        "memory_bytes": memory.bytes,
        "floats": threads * max(CACHE_FLOATS, memory.floats),
    }


def main() -> None:
    """Be the process; errors in one line, without a traceback."""
    try:
        facts = build(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
    except (SubpcError, OSError) as error:
        sys.exit(" ".join(str(error).split()))
    print(json.dumps(facts))
