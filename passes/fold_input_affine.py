"""Fold a batch norm and ReLU in FRONT of a 1x1 convolution (DenseNet) into its weights, so that one
comparison is left of them.

With c = -shift / scale, per input channel:
    relu(scale * x + shift) = scale * max(x, c) + shift   if scale > 0
                            = scale * min(x, c) + shift   if scale < 0
so the scale goes into the weights, the shift into the bias, and the convolution reads clamp(x),
which its kernel computes as it loads. Padding would need the clamped value of zero, hence 1x1 only.
"""

import numpy as np
import tvm
from tvm import relax

from subpc.passes import ops
from subpc.passes.dataflow import Dataflow, constant_of, rewrite, shape_of

_AFFINE_RELU = ("arg 0", "arg 1", "mul", "arg 2", "add", "act relu")
_KINDS = ("tensor", "channel", "channel")
FLOOR = ("arg 0", "arg 1", "max")
FLOOR_AND_CEILING = (*FLOOR, "arg 2", "min")


def fold_input_affine(module: tvm.IRModule) -> tvm.IRModule:
    """elementwise(relu(scale * x + shift)) -> conv2d(1x1) becomes elementwise(clamp(x)) ->
    conv2d(1x1) with other weights and bias."""
    return rewrite(module, _fold)


def _fold(graph: Dataflow) -> None:
    users = graph.users()
    for var, call in graph.calls(ops.CONV2D):
        source = graph.resolve(call.args[0])
        affine = graph.call(source, ops.ELEMENTWISE)
        if affine is None or users.get(source) != [var] or not is_pointwise(call):
            continue
        attrs = ops.attributes(affine)
        if tuple(attrs["program"]) == _AFFINE_RELU and tuple(attrs["kinds"]) == _KINDS:
            _rebind(graph, source, affine, var, call)


def is_pointwise(call: relax.Call) -> bool:
    """Whether a conv2d is 1x1, with stride 1, one group and no padding."""
    attrs = ops.attributes(call)
    plain = attrs["groups"] == 1 and tuple(attrs["strides"]) == (1, 1) and not any(attrs["padding"])
    return bool(plain and shape_of(call.args[1])[2:] == (1, 1))


def _rebind(
    graph: Dataflow, source: relax.Var, affine: relax.Call, var: relax.Var, conv: relax.Call
) -> None:
    scale, shift = (
        np.asarray(constant_of(graph.resolve(arg)), "float64") for arg in affine.args[1:3]
    )
    weight, bias = (
        np.asarray(constant_of(graph.resolve(arg)), "float64") for arg in conv.args[1:3]
    )
    threshold = np.divide(-shift, scale, out=np.zeros_like(scale), where=scale != 0)
    # A scale of zero leaves the constant relu(shift).
    constant = np.where(scale == 0, np.maximum(shift, 0), shift)
    bias = bias + weight[:, :, 0, 0] @ constant
    bounds = [np.where(scale > 0, threshold, -np.inf), np.where(scale < 0, threshold, np.inf)][
        : 2 if (scale < 0).any() else 1
    ]
    program = FLOOR_AND_CEILING if len(bounds) == 2 else FLOOR
    operands = [affine.args[0], *(relax.const(bound.astype("float32")) for bound in bounds)]
    name, shape = ops.attributes(affine)["name"], shape_of(source)
    graph.rebind(
        source, ops.elementwise(operands, list(program), list(_KINDS[: len(operands)]), shape, name)
    )
    parameters = [
        relax.const((weight * scale[None, :, None, None]).astype("float32")),
        relax.const(bias.astype("float32")),
    ]
    graph.rebind(var, ops.with_attributes(conv, [conv.args[0], *parameters, *conv.args[3:]]))
