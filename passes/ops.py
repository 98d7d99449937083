"""The operators that passes/ rewrites a model into: Relax calls whose attributes carry everything
the schedules need.

relax.subpc.conv2d(x, weight, bias, [residual])
    y = activation(conv(x) + bias + residual)
relax.subpc.conv2d_transpose(x, weight, bias)
    the same of a transposed convolution, until split_phases; weight (out, in / groups, kh, kw)
relax.subpc.linear(x, weight, bias)
    y = activation(x weight^T + bias), weight (out, in)
relax.subpc.pool2d(x), relax.subpc.global_pool(x)
relax.subpc.elementwise(x, ...)
    one fused pass over equally shaped tensors and per-channel operands
relax.subpc.interleave(x, [fill])
    the pixels of several planes next to each other in one (schedules/interleave.py)
relax.subpc.concat(x, ...)
    along the channels
relax.subpc.channels(x)
    some neighbouring channels of it, from `first` on; with `groups`, all of them, one of each
    group by turns
relax.subpc.view(x)
    the same elements in another shape
relax.subpc.fake_quantize(x)
    float32 values rounded to the codes of `quantization` and back; until to_integers
relax.subpc.dequantize(codes, scales)
    weights of codes: scales (out,) by codes (out, ...), int8; until to_integers
relax.subpc.other_layer(x, weight)
    a convolution or product that no kernel of ours takes, under its name, until legalize_rest

Tensors of codes have the type uint8: x stands for x_scale * (x - x_zero_point). A conv2d or linear
of such an x has int8 codes as weights with `weight_scales` (out,), and computes x_scale *
weight_scales * (whole sum) + bias; `x_quantization` says what its x stands for,
`residual_quantization` what its residual does, and `quantization`, with `dtype`, what its result
is rounded to, where that is uint8. A quantization is (scale, zero point). An elementwise has
`quantizations`, one for each operand, () for floats. All others pass codes on as they are, or (an
average) round to the same quantization.

Every call has `out_shape`; layers have `name`, the name that the user knows them by. A conv2d that
is one part of a layer has `layer`, that name, with `layer_shape` (out, in / groups, kh, kw) and
`layer_strides`, and a name of its own.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import tvm
import tvm_ffi
from tvm import relax
from tvm.ir.attrs import make_node

from subpc.schedules.activation import Activation
from subpc.schedules.quantization import Quantization

CONV2D = "relax.subpc.conv2d"
CONV2D_TRANSPOSE = "relax.subpc.conv2d_transpose"
LINEAR = "relax.subpc.linear"
POOL2D = "relax.subpc.pool2d"
GLOBAL_POOL = "relax.subpc.global_pool"
ELEMENTWISE = "relax.subpc.elementwise"
CONCAT = "relax.subpc.concat"
VIEW = "relax.subpc.view"
INTERLEAVE = "relax.subpc.interleave"
CHANNELS = "relax.subpc.channels"
FAKE_QUANTIZE = "relax.subpc.fake_quantize"
DEQUANTIZE = "relax.subpc.dequantize"
OTHER_LAYER = "relax.subpc.other_layer"
# Attributes never change, every pass asks for them, and reading them from TVM is slow: those of so
# many calls are kept as they were read.
_REMEMBERED = 1 << 14
LAYERS = (CONV2D, CONV2D_TRANSPOSE, LINEAR)
ALL = (CONV2D, LINEAR, POOL2D, GLOBAL_POOL, ELEMENTWISE, CONCAT, VIEW, INTERLEAVE, CHANNELS)


def _result_type(call: relax.Call, _context: object) -> relax.TensorType:
    attrs = attributes(call)
    own = "float32" if call.op.name == DEQUANTIZE else call.args[0].ty.dtype
    return relax.TensorType(attrs["out_shape"], attrs.get("dtype", own))


def _register() -> None:
    known = {str(name) for name in tvm_ffi.get_global_func("ir.ListOpNames")()}
    for name in (*ALL, CONV2D_TRANSPOSE, FAKE_QUANTIZE, DEQUANTIZE, OTHER_LAYER):
        if name not in known:
            tvm_ffi.get_global_func("ir.RegisterOp")(
                name, "subpc operator, see subpc/passes/ops.py"
            )
            tvm.ir.register_op_attr(name, "FInferType", _result_type)
            tvm.ir.register_op_attr(name, "FPurity", True)


_register()


def make(op: str, args: list[relax.Expr], **attrs: Any) -> relax.Call:
    """A call of one of our operators."""
    return relax.Call(tvm.ir.Op.get(op), args, make_node("ir.DictAttrs", **attrs))


def elementwise(
    args: list[relax.Expr], program: list[str], kinds: list[str], shape: tuple[int, ...], name: str
) -> relax.Call:
    """A fused pass over tensors of `shape`; program: postfix words "arg I", "const X", "act NAME
    ...", "add", "mul", "sub", "div", ...

    kinds: "tensor" (same shape), "channel" (C,) or "image_channel" (N, C) for each operand.
    """
    return make(ELEMENTWISE, args, program=program, kinds=kinds, out_shape=list(shape), name=name)


def activation_of(text: str) -> Activation:
    """The Activation behind an attribute such as "relu", "clip -1.0 1.0" or "leaky_relu 0.1"."""
    kind, *numbers = text.split()
    if kind == "clip":
        return Activation(kind=kind, low=float(numbers[0]), high=float(numbers[1]))
    return Activation(kind=kind, slope=float(numbers[0]) if numbers else 0.0)


def attributes(call: relax.Call) -> dict[str, Any]:
    """The attributes of one of our calls as plain Python values."""
    return dict(_read(call.attrs)) if call.attrs else {}


@lru_cache(maxsize=_REMEMBERED)
def _read(attrs: Any) -> dict[str, Any]:
    return {str(key): _plain(value) for key, value in dict(attrs).items()}


def quantization_of(value: Sequence[float] | None) -> Quantization | None:
    """What an attribute such as (0.5, 128) says; None for () and for nothing."""
    return Quantization(scale=value[0], zero_point=int(value[1])) if value else None


def layer_of(call: relax.Call) -> str:
    """The name of the layer in the user's model that a call computes, or computes a part of."""
    a = attributes(call)
    return str(a.get("layer", a["name"]))


def with_attributes(
    call: relax.Call, args: list[relax.Expr] | None = None, **changed: Any
) -> relax.Call:
    """The same call with some attributes, or its operands, changed."""
    return make(
        call.op.name, list(call.args) if args is None else args, **{**attributes(call), **changed}
    )


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return str(value)
    if isinstance(value, tvm.tirx.IntImm | tvm.tirx.FloatImm):
        return value.value
    if isinstance(value, list | tuple | tvm_ffi.Array):
        return tuple(_plain(item) for item in value)
    return value
