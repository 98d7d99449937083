"""Memory that kernels may use vector loads on: aligned, zeroed, on huge pages where they pay."""

import mmap
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

# One cache line and one 512-bit vector: generated code may use aligned loads and stores on every
# tensor.
ALIGNMENT = 64
HUGE_PAGE = 2 << 20


def workspace(floats: int) -> npt.NDArray[np.float32]:
    """(floats,) zeros, at least page-aligned; on huge pages from 2 MB on, so that planes do not
    wait for page-table walks."""
    size = max(4 * floats, mmap.PAGESIZE)
    if size < HUGE_PAGE:
        return np.frombuffer(mmap.mmap(-1, size), np.float32, count=floats)
    memory = mmap.mmap(-1, size + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    start = -address(np.frombuffer(memory, np.uint8)) % HUGE_PAGE
    return np.frombuffer(memory, np.float32, count=floats, offset=start)


def aligned_empty(shape: Sequence[int], dtype: str) -> npt.NDArray[np.generic]:
    """A contiguous array of `shape` at a cache-line boundary, contents undefined."""
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    raw = np.empty(size + ALIGNMENT, np.uint8)
    start = -address(raw) % ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)


def address(array: npt.NDArray[np.generic]) -> int:
    """The address of the first element of an array of any shape, in bytes."""
    return int(array.__array_interface__["data"][0])
