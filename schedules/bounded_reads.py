"""No read outside of a tensor, whatever the values are that a place in it is computed from.

Operators with places among their inputs (RoiAlign, grids, indices) trust them; a place that is too
far would end the process.
"""

from typing import Any

import tvm
import tvm_ffi
from tvm import tirx


def bounded_reads(func: Any) -> Any:
    """The function with every index that depends on values brought to the nearest element that
    there is."""
    return func.with_body(tvm_ffi.structural_map(func.body, (tvm.ir.TensorLoad, _bounded)))


def _bounded(load: Any) -> Any:
    indices = [
        _inside(index, extent)
        for index, extent in zip(load.indices, load.source.ty.shape, strict=True)
    ]
    if all(new.same_as(old) for new, old in zip(indices, load.indices, strict=True)):
        return load
    return tirx.BufferLoad(load.source, indices)


def _inside(index: Any, extent: Any) -> Any:
    if not _depends_on_values(index) or not isinstance(extent, tirx.IntImm):
        return index
    dtype = str(index.ty.dtype)
    return tirx.max(tirx.min(index, tirx.const(int(extent) - 1, dtype)), tirx.const(0, dtype))


def _depends_on_values(index: Any) -> bool:
    found = False

    def note(load: Any) -> Any:
        nonlocal found
        found = True
        return load

    tvm_ffi.structural_map(index, (tvm.ir.TensorLoad, note))
    return found
