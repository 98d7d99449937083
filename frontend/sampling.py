"""Sampling an image at the places of a grid, in both importers: places outside of the image, and
places that are none, as in PyTorch.

A place that is not a number is the first pixel where padding repeats pixels. TVM leaves that to the
processor's minimum and maximum, and loses places far outside when it reflects them.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from tvm import relax

_OP = relax.op
# Where the first pixel of an axis is, or nothing beyond it: padding brings it into the image.
_FIRST = -1.0
Emit = Callable[[Any], Any]


def grid_sample(emit: Emit, x: Any, grid: Any, *, method: str, padding: str, align: bool) -> Any:
    """x (N, C, H, W) at grid (N, H', W', 2), or volumes with one axis more; padding: "zeros",
    "border" or "reflection"."""
    extents = np.array(
        [int(n) for n in x.ty.shape][:1:-1], np.float32
    )  # the grid counts from the last axis
    if padding == "reflection":
        grid = _reflected(emit, grid, extents, align=align)
    if padding != "zeros":
        grid = emit(_OP.where(emit(_OP.isnan(grid)), relax.const(_FIRST, "float32"), grid))
    rank = len(extents) + 2
    turned = emit(_OP.permute_dims(grid, [0, rank - 1, *range(1, rank - 1)]))
    layout = "NCHW" if rank == 4 else "NCDHW"
    kept = "zeros" if padding == "zeros" else "border"
    return _OP.image.grid_sample(
        x, turned, method=method, layout=layout, padding_mode=kept, align_corners=align
    )


def _reflected(emit: Emit, grid: Any, extents: np.ndarray, *, align: bool) -> Any:
    """The grid with all places inside of the image: mirrored at its first and last pixels, or at
    their outer edges."""
    span = extents - 1 if align else extents
    safe = np.maximum(span, 1)  # an axis of one pixel has one place
    half = (safe / 2).astype(np.float32)
    # From -1 to 1 the grid runs over the span.
    place = emit(
        _OP.abs(
            emit(_OP.multiply(emit(_OP.add(grid, relax.const(1.0, "float32"))), relax.const(half)))
        )
    )
    length = relax.const(safe)
    rest = emit(_OP.mod(place, length))
    turns = emit(_OP.floor(emit(_OP.divide(place, length))))
    odd = emit(
        _OP.greater(emit(_OP.mod(turns, relax.const(2.0, "float32"))), relax.const(0.5, "float32"))
    )
    inside = emit(_OP.where(odd, emit(_OP.subtract(length, rest)), rest))
    back = emit(
        _OP.subtract(emit(_OP.divide(inside, relax.const(half))), relax.const(1.0, "float32"))
    )
    if (span > 0).all():
        return back
    return emit(_OP.where(relax.const(span > 0), back, relax.const(_FIRST, "float32")))
