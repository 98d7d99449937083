"""Reads a layer's result out of the memory that kernels work in."""

from typing import Any

import numpy as np
import numpy.typing as npt

from subpc.library.report import ResultInfo

_FLOAT = 4


def read_result(info: ResultInfo, space: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """A copy of the result as a contiguous array of `info.shape`; space: the workspace, or the
    output array that it is in."""
    strides = (info.image, info.plane, info.pitch, 1)[: len(info.shape)]
    start = info.offset + info.first
    last = start + sum(
        (extent - 1) * stride for extent, stride in zip(info.shape, strides, strict=True)
    )
    flat = space.reshape(-1)
    if flat.dtype != np.float32 or not 0 <= start <= last < flat.size or min(strides) < 0:
        raise ValueError(f"a result of shape {info.shape} does not lie in {flat.size} floats")
    view = np.lib.stride_tricks.as_strided(
        flat[start:], info.shape, [_FLOAT * stride for stride in strides], writeable=False
    )
    return np.ascontiguousarray(view)
