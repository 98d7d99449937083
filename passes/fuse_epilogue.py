"""Fuse a residual addition and an activation into the layer that produces their operand."""

import tvm
from tvm import relax

from subpc.passes import ops
from subpc.passes.dataflow import Dataflow, rewrite, shape_of


def fuse_epilogue(module: tvm.IRModule) -> tvm.IRModule:
    """conv2d -> [add(residual)] -> [activation] becomes one conv2d; conv2d_transpose or linear ->
    activation one such layer."""
    return rewrite(module, _fuse)


def _fuse(graph: Dataflow) -> None:
    users = graph.users()
    order = {var: i for i, var in enumerate(graph.live())}
    for var in list(order):
        fused = _activation(graph, users, var)
        if fused is None:
            fused = _residual(graph, users, order, var)
        if fused is None:
            continue
        layer_var, call = fused
        graph.rebind(var, call)
        users.pop(layer_var, None)


def _single_layer(
    graph: Dataflow, users: dict[relax.Var, list[relax.Var | None]], value: relax.Expr, *names: str
) -> relax.Call | None:
    """The layer call behind `value` if nobody else reads its result and nothing follows it yet."""
    value = graph.resolve(value)
    if not isinstance(value, relax.Var) or len(users.get(value, [])) != 1:
        return None
    layer = graph.call(value, *names)
    return layer if layer is not None and ops.attributes(layer)["activation"] == "none" else None


def _activation(
    graph: Dataflow, users: dict[relax.Var, list[relax.Var | None]], var: relax.Var
) -> tuple[relax.Var, relax.Call] | None:
    act = graph.call(var, ops.ELEMENTWISE)
    program: tuple[str, ...] = ops.attributes(act)["program"] if act is not None else ()
    if act is None or len(program) != 2 or not program[1].startswith("act "):
        return None
    layer = _single_layer(graph, users, act.args[0], *ops.LAYERS)
    if layer is None:
        return None
    return graph.resolve(act.args[0]), ops.with_attributes(
        layer, activation=program[1].removeprefix("act ")
    )


def _residual(
    graph: Dataflow,
    users: dict[relax.Var, list[relax.Var | None]],
    order: dict[relax.Var, int],
    var: relax.Var,
) -> tuple[relax.Var, relax.Call] | None:
    add = graph.call(var, "relax.add")
    if add is None or len(shape_of(var)) != 4:
        return None
    left, right = (graph.resolve(arg) for arg in add.args)
    # Of two convolutions (a downsampling shortcut) the later one takes the sum: the earlier one is
    # there by then.
    pairs = sorted(((left, right), (right, left)), key=lambda pair: -order.get(pair[0], -1))
    for value, residual in pairs:
        layer = _single_layer(graph, users, value, ops.CONV2D)
        fits = (
            layer is not None
            and len(layer.args) == 3
            and isinstance(residual, relax.Var)
            # A sum may be larger than either: the other operand is then repeated.
            and shape_of(value) == shape_of(residual) == shape_of(var)
        )
        if layer is not None and fits and not residual.same_as(value):
            return value, ops.with_attributes(layer, [*layer.args, residual])
    return None
