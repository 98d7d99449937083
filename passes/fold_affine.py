"""Fold batch norms, biases and per-channel scales into the weights of the layer before them."""

import numpy as np
import tvm
from tvm import relax

from subpc.passes import ops
from subpc.passes.dataflow import Dataflow, constant_of, rewrite, shape_of

# y = scale * x + shift per channel, both (C,)
Affine = tuple[np.ndarray, np.ndarray]


def fold_affine(module: tvm.IRModule) -> tvm.IRModule:
    """conv2d, conv2d_transpose or linear -> batch_norm / add(bias) / multiply(scale) becomes one
    layer with other weights and bias.

    A batch norm that no layer precedes alone becomes a per-channel subpc.elementwise `x * scale +
    shift`.
    """
    return rewrite(module, _fold)


def _fold(graph: Dataflow) -> None:
    users = graph.users()
    for var, expr in list(graph.exprs.items()):
        found = _affine_of(graph, var, expr)
        if found is None:
            continue
        source, (scale, shift) = found
        layer = graph.call(source, *ops.LAYERS)
        source_var = graph.resolve(source)
        alone = (
            layer is not None
            and isinstance(source_var, relax.Var)
            and len(users.get(source_var, [])) == 1
        )
        if layer is not None and alone and constant_of(graph.resolve(layer.args[1])) is not None:
            graph.rebind(source_var, _scaled(graph, layer, scale, shift))
            graph.replace(var, source_var)
            users[source_var] = users.get(var, [])
        elif isinstance(expr, relax.TupleGetItem) and len(shape_of(var)) == 4:
            # Only a batch norm: other arithmetic is left for the passes that know it by its shape,
            # such as hard-swish.
            operands = [source, relax.const(scale), relax.const(shift)]
            program = ["arg 0", "arg 1", "mul", "arg 2", "add"]
            graph.rebind(
                var,
                ops.elementwise(
                    operands,
                    program,
                    ["tensor", "channel", "channel"],
                    shape_of(var),
                    str(var.name),
                ),
            )


def _scaled(graph: Dataflow, layer: relax.Call, scale: np.ndarray, shift: np.ndarray) -> relax.Call:
    """The layer with scale * (layer) + shift as its output; float64 in between, as folding is where
    rounding adds up."""
    weight, bias = (
        constant_of(graph.resolve(layer.args[1])),
        constant_of(graph.resolve(layer.args[2])),
    )
    assert weight is not None and bias is not None
    transposed = layer.op.name == ops.LINEAR and ops.attributes(layer)["transposed"]
    axis = (1, -1) if transposed else (-1,) + (1,) * (weight.ndim - 1)
    weight = (weight.astype("float64") * scale.astype("float64").reshape(axis)).astype("float32")
    bias = (bias.astype("float64") * scale + shift).astype("float32")
    return ops.with_attributes(
        layer, [layer.args[0], relax.const(weight), relax.const(bias), *layer.args[3:]]
    )


def _affine_of(
    graph: Dataflow, var: relax.Var, expr: relax.Expr
) -> tuple[relax.Expr, Affine] | None:
    """(input, (scale, shift)) if `var` is a per-channel affine function of one tensor."""
    if isinstance(expr, relax.TupleGetItem) and expr.index == 0:
        norm = graph.call(expr.tuple_value, "relax.nn.batch_norm")
        return _batch_norm(graph, norm) if norm is not None else None
    call = graph.call(var, "relax.add", "relax.subtract", "relax.multiply", "relax.divide")
    if call is None or str(var.ty.dtype) != "float32":
        return None
    return _binary(graph, var, call)


def _batch_norm(graph: Dataflow, norm: relax.Call) -> tuple[relax.Expr, Affine] | None:
    parameters = [constant_of(graph.resolve(arg)) for arg in norm.args[1:5]]
    if any(p is None for p in parameters) or int(norm.attrs.axis) != 1:
        return None
    gamma, beta, mean, variance = (np.asarray(p, "float64") for p in parameters)
    scale = gamma / np.sqrt(variance + float(norm.attrs.epsilon))
    return norm.args[0], (scale.astype("float32"), (beta - mean * scale).astype("float32"))


def _binary(graph: Dataflow, var: relax.Var, call: relax.Call) -> tuple[relax.Expr, Affine] | None:
    left, right = (graph.resolve(arg) for arg in call.args)
    op = call.op.name.removeprefix("relax.")
    x, other, swapped = (
        (left, right, False) if constant_of(right) is not None else (right, left, True)
    )
    constant = constant_of(other)
    if (
        constant is None
        or constant_of(x) is not None
        or shape_of(x) != shape_of(var)
        or (swapped and op in ("subtract", "divide"))
    ):
        return None
    layer = graph.call(x, *ops.LAYERS)
    if layer is None or ops.attributes(layer)["activation"] != "none":
        return None
    channels = _per_channel(constant, shape_of(var), -1 if layer.op.name == ops.LINEAR else 1)
    if channels is None:
        return None
    one, zero = np.ones_like(channels), np.zeros_like(channels)
    if op == "divide":
        return (x, (one / channels, zero)) if channels.all() else None
    affine = {
        "add": (one, channels),
        "subtract": (one, -channels),
        "multiply": (channels, zero),
    }[op]
    return x, affine


def _per_channel(constant: np.ndarray, shape: tuple[int, ...], axis: int) -> np.ndarray | None:
    """The constant as one value a channel, if it broadcasts along every other axis."""
    padded = constant.reshape((1,) * (len(shape) - constant.ndim) + constant.shape)
    axis %= len(shape)
    if any(padded.shape[i] != 1 for i in range(padded.ndim) if i != axis):
        return None
    return np.ascontiguousarray(np.broadcast_to(padded.reshape(-1), (shape[axis],)), "float32")
