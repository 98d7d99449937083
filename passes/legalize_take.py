"""Elements picked by constant indices that are inside of the tensor, read as they are: TVM's
library would check each again."""

from collections.abc import Callable
from typing import Any

import numpy as np
from tvm import relax, te, topi

from subpc.frontend.safe_indices import inside
from subpc.passes.dataflow import shape_of

Legalize = Callable[[relax.BlockBuilder, relax.Call], relax.Expr]


def _take(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    data, index = call.args
    axis, mode = call.attrs.axis, str(call.attrs.mode)
    if axis is None or mode != "clip" or not inside(index, np.array(shape_of(data)[int(axis)])):
        return builder.call_te(topi.take, data, index, axis, mode=mode)
    place = int(axis) % len(shape_of(data))
    end = place + len(shape_of(index))

    def compute(x: Any, picked: Any) -> Any:
        return te.compute(
            shape_of(call), lambda *i: x(*i[:place], picked(*i[place:end]), *i[end:]), name="take"
        )

    return builder.call_te(compute, data, index, primfunc_name_hint="take")


PICKING: dict[str, Legalize] = {"relax.take": _take}
