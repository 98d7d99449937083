"""Which function lowers a call of which operator."""

from subpc.passes import ops
from subpc.passes.lower_conv import lower_conv2d
from subpc.passes.lower_elementwise import lower_elementwise
from subpc.passes.lower_fallback import lower_call_tir
from subpc.passes.lower_linear import lower_linear
from subpc.passes.lower_planes import (
    lower_channels,
    lower_concat,
    lower_global_pool,
    lower_interleave,
    lower_pool2d,
    lower_view,
)

LOWERING_RULES = {
    ops.CONV2D: lower_conv2d,
    ops.LINEAR: lower_linear,
    ops.POOL2D: lower_pool2d,
    ops.GLOBAL_POOL: lower_global_pool,
    ops.ELEMENTWISE: lower_elementwise,
    ops.CONCAT: lower_concat,
    ops.VIEW: lower_view,
    ops.INTERLEAVE: lower_interleave,
    ops.CHANNELS: lower_channels,
    "relax.call_tir": lower_call_tir,
}
