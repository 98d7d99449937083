"""Running sums and products along an axis, in both importers: as many steps as the extent has
bits."""

from collections.abc import Callable
from typing import Any

import numpy as np
from tvm import relax


def running(
    x: Any,
    axis: int,
    operator: Callable[[Any, Any], Any],
    neutral: float,
    *,
    exclusive: bool = False,
    reverse: bool = False,
) -> Any:
    """What `operator` makes of each element and all before it: of spans of 1, 2, 4, ... elements,
    each from two of half its length.

    exclusive: without the element itself; reverse: of all behind it.
    """
    shape, dtype = [int(n) for n in x.ty.shape], str(x.ty.dtype)
    axis %= len(shape)

    def shifted(value: Any, count: int) -> Any:
        extent = [count if i == axis else n for i, n in enumerate(shape)]
        start, end = (count, shape[axis]) if reverse else (0, shape[axis] - count)
        fill, kept = (
            relax.const(np.full(extent, neutral, dtype), dtype),
            relax.op.strided_slice(value, [axis], [start], [end]),
        )
        return relax.op.concat([kept, fill] if reverse else [fill, kept], axis)

    span = 1
    while span < shape[axis]:
        x = operator(x, shifted(x, span))
        span *= 2
    return shifted(x, 1) if exclusive else x
