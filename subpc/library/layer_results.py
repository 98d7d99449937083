"""Reads a layer's result out of the memory that kernels work in."""

from typing import Any

import numpy as np
import numpy.typing as npt

from subpc.library.report import ResultInfo

# What results may be stored as: values, or codes of one byte.
_FLOATS, _CODES = "float32", "uint8"


def read_result(info: ResultInfo, space: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """A copy of the result as a contiguous array of `info.shape`, codes as what they stand for;
    space: the workspace, or the output array that it is in.

    Raises:
        ValueError: it does not lie in that memory, or is of another type.
    """
    if info.dtype not in (_FLOATS, _CODES) or space.dtype != np.float32:
        raise ValueError(f"a result of type {info.dtype!r:.40} in memory of {space.dtype}")
    strides = (info.image, info.plane, info.pitch, 1)[: len(info.shape)]
    start = info.offset + info.first
    last = start + sum(
        (extent - 1) * stride for extent, stride in zip(info.shape, strides, strict=True)
    )
    flat = space.reshape(-1).view(info.dtype)
    if not 0 <= start <= last < flat.size or min(strides) < 0:
        kind = "floats" if info.dtype == _FLOATS else "bytes"
        raise ValueError(f"a result of shape {info.shape} does not lie in {flat.size} {kind}")
    view = np.lib.stride_tricks.as_strided(
        flat[start:], info.shape, [flat.itemsize * stride for stride in strides], writeable=False
    )
    if info.dtype == _FLOATS:
        return np.ascontiguousarray(view)
    values = np.float32(info.scale) * (view.astype(np.float32) - np.float32(info.zero_point))
    return np.ascontiguousarray(values, np.float32)
