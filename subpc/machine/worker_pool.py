"""The native half of running a library: worker threads that all libraries share, in the folder
pool/."""

import ctypes
import functools
import importlib.util

from subpc.errors import SubpcError

_EXTENSION = "subpc._worker_pool"


@functools.lru_cache(maxsize=1)
def worker_pool() -> ctypes.CDLL:
    """The loaded extension; SubpcError where it was not built."""
    spec = importlib.util.find_spec(_EXTENSION)
    if spec is None or spec.origin is None:
        raise SubpcError(
            "subpc's worker pool is not built; install subpc again where a C compiler is, on Debian"
            " or Ubuntu: apt install gcc, or from a wheel that was built there: pip wheel --no-deps"
            " PATH_TO_THE_CLONE"
        )
    try:
        pool = ctypes.CDLL(spec.origin)
    except OSError as error:
        raise SubpcError(
            f"subpc's worker pool cannot be loaded ({error}); install subpc again"
        ) from error
    pool.subpc_call.argtypes = [
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_int32,
        ctypes.c_void_p,
        ctypes.c_int32,
    ]
    pool.subpc_use_threads.argtypes = pool.subpc_start_workers.argtypes = [ctypes.c_int32]
    pool.subpc_use_threads.restype = pool.subpc_start_workers.restype = None
    return pool


def launcher() -> int:
    """The address of the function that a library runs its parallel loops with."""
    return int(ctypes.cast(worker_pool().subpc_launch, ctypes.c_void_p).value or 0)


def use_threads(count: int) -> None:
    """How many threads the calling thread's parallel loops get outside of `native.run`."""
    worker_pool().subpc_use_threads(count)


def start_workers(count: int) -> None:
    """Start the workers for `count` threads now; otherwise the first parallel loop does."""
    worker_pool().subpc_start_workers(count)
