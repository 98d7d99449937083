"""What the C library keeps of freed memory, given back to the system."""

import ctypes
from functools import cache

_FIELDS = (
    "arena",
    "ordblks",
    "smblks",
    "hblks",
    "hblkhd",
    "usmblks",
    "fsmblks",
    "uordblks",
    "fordblks",
    "keepcost",
)


class _Info(ctypes.Structure):
    """mallinfo2 of glibc."""

    _fields_ = tuple((name, ctypes.c_size_t) for name in _FIELDS)


@cache
def _library() -> ctypes.CDLL | None:
    """The C library, where it is a glibc that has both calls (2.33 and later)."""
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallinfo2") or not hasattr(library, "malloc_trim"):
        return None
    library.mallinfo2.restype = _Info
    return library


def give_back_memory(may_stay: int = 0) -> None:
    """Give back what is free, if it is more than `may_stay` bytes: getting pages anew costs time.

    Tensors of many sizes, some of which stay, leave holes: up to half of all that is held.
    Nothing happens where the C library has no such call.
    """
    library = _library()
    if library is not None and library.mallinfo2().fordblks > may_stay:
        library.malloc_trim(0)
