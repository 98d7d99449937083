"""Lowering of convolutions: single pixels as matrix products, all others by the rule of the kernel
family that they get."""

from collections.abc import Callable

from tvm import relax

from subpc.passes import ops
from subpc.passes.dataflow import shape_of
from subpc.passes.lower import Lowering
from subpc.passes.lower_direct import lower_direct
from subpc.passes.lower_flat import lower_flat
from subpc.passes.lower_grouped import lower_grouped
from subpc.passes.lower_int8_grouped import lower_int8_grouped
from subpc.passes.lower_linear import lower_single_pixel
from subpc.passes.lower_quads import lower_quads
from subpc.passes.lower_winograd import lower_winograd
from subpc.schedules.choose_direct import DIRECT
from subpc.schedules.choose_flat import FLAT
from subpc.schedules.choose_grouped import GROUPED
from subpc.schedules.choose_int8_grouped import GROUPED_I8
from subpc.schedules.choose_quads import QUADS
from subpc.schedules.choose_winograd import WINOGRAD

# One rule a family of schedules/families.py.
RULES: dict[str, Callable[[Lowering, relax.Var, relax.Call], None]] = {
    FLAT.name: lower_flat,
    DIRECT.name: lower_direct,
    WINOGRAD.name: lower_winograd,
    GROUPED.name: lower_grouped,
    QUADS.name: lower_quads,
    GROUPED_I8.name: lower_int8_grouped,
}


def lower_conv2d(low: Lowering, var: relax.Var, call: relax.Call) -> None:
    """A subpc.conv2d: choose the kernel family, bring the input into its layout, pack the
    weights."""
    attrs = ops.attributes(call)
    if (
        attrs["groups"] == 1
        and shape_of(call.args[0])[2:] == (1, 1)
        and tuple(attrs["out_shape"][2:]) == (1, 1)
    ):
        lower_single_pixel(low, var, call)
    else:
        family, decision = low.family(call), low.decisions[attrs["name"]]
        assert family.precision == decision.precision, f"{attrs['name']}: {family.name}"
        RULES[family.name](low, var, call)
