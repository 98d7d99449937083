"""Rounding to codes and back in floats, for what no kernel of ours computes in whole numbers."""

from collections.abc import Callable
from typing import Any

from tvm import relax, te, tirx

from subpc.passes import ops
from subpc.passes.dataflow import shape_of
from subpc.schedules.quantization import LARGEST_CODE

Legalize = Callable[[relax.BlockBuilder, relax.Call], relax.Expr]


def _fake_quantize(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """scale * clip(round(x / scale), -zero point, 255 - zero point), halves to the even neighbour;
    what is not a number becomes zero."""
    to = ops.quantization_of(ops.attributes(call)["quantization"])
    assert to is not None
    scale = tirx.const(to.scale, "float32")
    low, high = (tirx.const(float(code - to.zero_point), "float32") for code in (0, LARGEST_CODE))

    def rounded(x: Any) -> Any:
        steps = tirx.max(tirx.min(tirx.nearbyint(x / scale), high), low)
        return tirx.Select(tirx.isnan(x), tirx.const(0.0, "float32"), steps * scale)

    return builder.call_te(
        lambda x: te.compute(shape_of(call), lambda *i: rounded(x(*i)), name="rounded"),
        call.args[0],
        primfunc_name_hint="fake_quantize",
    )


QUANTIZED: dict[str, Legalize] = {ops.FAKE_QUANTIZE: _fake_quantize}
