"""Spell every activation one way: relu, relu6, hard-swish, hard-sigmoid, SiLU, ... as
subpc.elementwise with an activation step."""

import math

import tvm
from tvm import relax

from subpc.passes import ops
from subpc.passes.dataflow import Dataflow, dtype_of, rewrite, scalar_of, shape_of

# (input, activation as our attributes spell it: "relu", "clip -1.0 1.0", "leaky_relu 0.1")
Match = tuple[relax.Expr, str]
_SIMPLE = {
    "relax.nn.relu": "relu",
    "relax.sigmoid": "sigmoid",
    "relax.nn.silu": "silu",
    "relax.nn.gelu": "gelu",
    "relax.nn.gelu_tanh": "gelu_tanh",
    "relax.nn.hardswish": "hardswish",
    "relax.nn.hardsigmoid": "hardsigmoid",
    "relax.exp": "exp",
}


def recognise_activations(module: tvm.IRModule) -> tvm.IRModule:
    """Importers write hard-swish as x * clip(x + 3, 0, 6) / 6 and the like; kernels want one
    name."""
    return rewrite(module, _recognise)


def _recognise(graph: Dataflow) -> None:
    for var, call in graph.calls(
        *_SIMPLE,
        "relax.clip",
        "relax.nn.leakyrelu",
        "relax.multiply",
        "relax.divide",
        "relax.minimum",
        "relax.maximum",
    ):
        if dtype_of(var) != "float32":
            continue
        match = _match(graph, call)
        if match is not None:
            graph.rebind(
                var,
                ops.elementwise(
                    [match[0]],
                    ["arg 0", f"act {match[1]}"],
                    ["tensor"],
                    shape_of(var),
                    str(var.name),
                ),
            )


def _match(graph: Dataflow, call: relax.Call) -> Match | None:
    name = call.op.name
    if name in _SIMPLE:
        return call.args[0], _SIMPLE[name]
    if name == "relax.nn.leakyrelu":
        return call.args[0], f"leaky_relu {float(call.attrs.alpha)}"
    clip = _clip(graph, call)
    if clip is not None:
        x, low, high = clip
        hard = _hard_sigmoid_of(graph, x, low, high)
        return hard if hard is not None else _plain_clip(x, low, high)
    if name == "relax.divide" and scalar_of(graph.resolve(call.args[1])) == 6.0:
        return _divided_by_six(graph, call.args[0])
    if name == "relax.multiply":
        return _product(graph, call)
    return None


def _plain_clip(x: relax.Expr, low: float, high: float) -> Match:
    if low == 0.0 and high == math.inf:
        return x, "relu"
    return x, "relu6" if (low, high) == (0.0, 6.0) else f"clip {low} {high}"


def _clip(graph: Dataflow, call: relax.Call) -> tuple[relax.Expr, float, float] | None:
    """(x, low, high) of a clip, also one written as minimum(maximum(...)) or as two clips."""
    name = call.op.name
    if name == "relax.clip":
        low, high = (float(bound.value) for bound in call.args[1:3])
        x = call.args[0]
    elif name in ("relax.minimum", "relax.maximum"):
        bound = scalar_of(graph.resolve(call.args[1]))
        if bound is None:
            return None
        x, low, high = (
            call.args[0],
            *((-math.inf, bound) if name == "relax.minimum" else (bound, math.inf)),
        )
    else:
        return None
    inner = graph.call(x, ops.ELEMENTWISE)
    kind = _activation_of(graph, x).split()
    if inner is not None and kind and kind[0] in ("clip", "relu"):
        inner_low, inner_high = (
            (0.0, math.inf) if kind[0] == "relu" else (float(kind[1]), float(kind[2]))
        )
        return inner.args[0], max(low, inner_low), min(high, inner_high)
    return x, low, high


def _activation_of(graph: Dataflow, value: relax.Expr) -> str:
    """The activation that `value` is the result of, "" if it is none."""
    call = graph.call(value, ops.ELEMENTWISE)
    program: tuple[str, ...] = ops.attributes(call)["program"] if call is not None else ()
    return (
        program[1].removeprefix("act ")
        if len(program) == 2 and program[1].startswith("act ")
        else ""
    )


def _hard_sigmoid_of(graph: Dataflow, x: relax.Expr, low: float, high: float) -> Match | None:
    """clip(a * x + b, 0, 1) with a = 1/6, b = 1/2."""
    add = graph.call(x, "relax.add")
    if (low, high) != (0.0, 1.0) or add is None:
        return None
    scaled, offset = _scaled_input(graph, add)
    if offset is None or abs(offset - 0.5) > 1e-6:
        return None
    multiply = graph.call(scaled, "relax.multiply", "relax.divide")
    if multiply is None:
        return None
    inner, factor = _scaled_input(graph, multiply)
    if factor is not None and multiply.op.name == "relax.divide":
        factor = 1.0 / factor
    return (inner, "hardsigmoid") if factor is not None and abs(factor - 1 / 6) < 1e-4 else None


def _scaled_input(graph: Dataflow, call: relax.Call) -> tuple[relax.Expr, float | None]:
    """(tensor, scalar) of a commutative call with one scalar constant."""
    left, right = (graph.resolve(arg) for arg in call.args)
    scalar = scalar_of(right)
    return (left, scalar) if scalar is not None else (right, scalar_of(left))


def _relu6_of_plus_three(graph: Dataflow, value: relax.Expr) -> relax.Expr | None:
    """x if value is relu6(x + 3)."""
    clip = graph.call(value, ops.ELEMENTWISE)
    if clip is None or _activation_of(graph, value) != "relu6":
        return None
    add = graph.call(clip.args[0], "relax.add")
    if add is None:
        return None
    x, offset = _scaled_input(graph, add)
    return x if offset == 3.0 else None


def _divided_by_six(graph: Dataflow, value: relax.Expr) -> Match | None:
    """relu6(x + 3) / 6 and x * relu6(x + 3) / 6."""
    x = _relu6_of_plus_three(graph, value)
    if x is not None:
        return x, "hardsigmoid"
    product = graph.call(value, "relax.multiply")
    if product is None:
        return None
    for a, b in (product.args, reversed(list(product.args))):
        x = _relu6_of_plus_three(graph, b)
        if x is not None and graph.resolve(x).same_as(graph.resolve(a)):
            return x, "hardswish"
    return None


def _product(graph: Dataflow, call: relax.Call) -> Match | None:
    """x * sigmoid(x), x * hardsigmoid(x), and relu6(x + 3) * (1 / 6)."""
    left, right = (graph.resolve(arg) for arg in call.args)
    for a, b in ((left, right), (right, left)):
        gate = graph.call(b, ops.ELEMENTWISE)
        kind = _activation_of(graph, b)
        if (
            gate is not None
            and kind in ("sigmoid", "hardsigmoid")
            and len(gate.args) == 1
            and graph.resolve(gate.args[0]).same_as(a)
        ):
            return a, "silu" if kind == "sigmoid" else "hardswish"
        factor = scalar_of(b)
        if factor is not None and abs(factor - 1 / 6) < 1e-6:
            return _divided_by_six(graph, a)
    return None
