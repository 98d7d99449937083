"""Turn arithmetic on activations into subpc.elementwise, and chains of it into one pass over
memory."""

import numpy as np
import tvm
from tvm import relax

from subpc.passes import ops
from subpc.passes.dataflow import Dataflow, constant_of, dtype_of, rewrite, scalar_of, shape_of

_BINARY = {
    "relax.add": "add",
    "relax.subtract": "sub",
    "relax.multiply": "mul",
    "relax.divide": "div",
    "relax.maximum": "max",
    "relax.minimum": "min",
}
# More operands than this and the pointers no longer fit the integer registers of x86.
MAX_OPERANDS = 6
# Longer chains become several passes over memory; as one they would take quadratic time to build.
MAX_WORDS = 64


def fuse_elementwise(module: tvm.IRModule) -> tvm.IRModule:
    """add, multiply, ... of equally shaped tensors, per-channel operands and scalars; then
    producers into single consumers."""
    return rewrite(module, _fuse)


def _fuse(graph: Dataflow) -> None:
    for var, call in graph.calls(*_BINARY):
        converted = _convert(graph, var, call)
        if converted is not None:
            graph.rebind(var, converted)
    users = graph.users()
    for var in graph.live():
        call = graph.call(var, ops.ELEMENTWISE)
        if call is not None:
            graph.rebind(var, _inline_operands(graph, users, call))


def _convert(graph: Dataflow, var: relax.Var, call: relax.Call) -> relax.Call | None:
    shape = shape_of(var)
    if dtype_of(var) != "float32" or 0 in shape:
        return None
    args: list[relax.Expr] = []
    kinds: list[str] = []
    program: list[str] = []
    for operand in (graph.resolve(arg) for arg in call.args):
        scalar, kind = scalar_of(operand), _kind(operand, shape)
        if scalar is not None and np.isfinite(scalar):
            program.append(f"const {scalar!r}")
        elif kind is not None:
            program.append(f"arg {len(args)}")
            args.append(_flattened(operand, kind))
            kinds.append(kind)
        else:
            return None
    if "tensor" not in kinds:
        return None
    return ops.elementwise(args, [*program, _BINARY[call.op.name]], kinds, shape, str(var.name))


def _kind(operand: relax.Expr, shape: tuple[int, ...]) -> str | None:
    """How an operand broadcasts over (N, C, H, W)."""
    own = shape_of(operand)
    if own == shape and constant_of(operand) is None:
        return "tensor"
    if len(shape) != 4:
        return None
    padded = (1,) * (4 - len(own)) + own
    if padded == (1, shape[1], 1, 1) and constant_of(operand) is not None:
        return "channel"
    return "image_channel" if own == (*shape[:2], 1, 1) and constant_of(operand) is None else None


def _flattened(operand: relax.Expr, kind: str) -> relax.Expr:
    value = constant_of(operand)
    return (
        relax.const(np.ascontiguousarray(value.reshape(-1)))
        if kind == "channel" and value is not None
        else operand
    )


def _inline_operands(
    graph: Dataflow, users: dict[relax.Var, list[relax.Var | None]], call: relax.Call
) -> relax.Call:
    """Replace operands that are elementwise results nobody else reads by the programs that compute
    them."""
    attrs = ops.attributes(call)
    args: list[relax.Expr] = []
    kinds: list[str] = []
    program: list[str] = []
    for word in attrs["program"]:
        if not word.startswith("arg "):
            program.append(word)
            continue
        index = int(word[4:])
        operand, kind = graph.resolve(call.args[index]), attrs["kinds"][index]
        inner = graph.call(operand, ops.ELEMENTWISE) if kind == "tensor" else None
        alone = isinstance(operand, relax.Var) and len(users.get(operand, [])) == 1
        repeated = sum(other == word for other in attrs["program"]) > 1
        if inner is not None and alone and not repeated and _fits(inner, call, len(args)):
            inner_attrs = ops.attributes(inner)
            for part in inner_attrs["program"]:
                program.append(
                    _operand_word(
                        graph,
                        args,
                        kinds,
                        inner.args[int(part[4:])],
                        inner_attrs["kinds"][int(part[4:])],
                    )
                    if part.startswith("arg ")
                    else part
                )
        else:
            program.append(_operand_word(graph, args, kinds, operand, kind))
    return ops.elementwise(args, program, kinds, attrs["out_shape"], attrs["name"])


def _fits(inner: relax.Call, outer: relax.Call, taken: int) -> bool:
    words = len(inner.attrs["program"]) + len(outer.attrs["program"])
    return taken + len(inner.args) + len(outer.args) <= MAX_OPERANDS and words <= MAX_WORDS


def _operand_word(
    graph: Dataflow, args: list[relax.Expr], kinds: list[str], operand: relax.Expr, kind: str
) -> str:
    operand = graph.resolve(operand)
    for i, known in enumerate(args):
        if known.same_as(operand):
            return f"arg {i}"
    args.append(operand)
    kinds.append(kind)
    return f"arg {len(args) - 1}"
