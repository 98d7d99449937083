"""Which tensors of a graph become codes, and which of them have to share one quantization."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from tvm import relax

from subpc.passes import ops
from subpc.passes.codes import INTEGER_LAYERS, passes_codes, rounds, stored_weight
from subpc.passes.dataflow import Dataflow, dtype_of, shape_of

# Which layers compute in integers: called with the name of each that could.
Wanted = Callable[[str], bool]
# Operands of a layer that are tensors of values: x and the residual.
_VALUES = (0, 3)


@dataclass(frozen=True, kw_only=True)
class Places:
    """layers: the integer layers of a graph, in order; groups: tensors that are rounded to codes,
    those with one quantization together."""

    layers: tuple[relax.Var, ...]
    groups: tuple[tuple[relax.Var, ...], ...]


def find_places(graph: Dataflow, wanted: Wanted = lambda name: True) -> Places:
    """The integer layers among those that could be, and every tensor that they read, or that is
    read on the way from one to the next."""
    layers = tuple(
        var
        for var, call in graph.calls(*INTEGER_LAYERS)
        if can_be_integer(graph, call) and wanted(ops.layer_of(call))
    )
    coded = _coded(graph, set(layers))
    return Places(layers=layers, groups=_groups(graph, coded))


def can_be_integer(graph: Dataflow, call: relax.Call) -> bool:
    """Whether a conv2d or linear has constant weights, floats or codes of the file, and images or
    rows as input."""
    weight = stored_weight(graph, call)
    dimensions = 4 if call.op.name == ops.CONV2D else 2
    return (
        weight is not None
        and not unrounded(graph, call.args[0])
        and weight.dtype in ("float32", "int8")
        and len(shape_of(graph.resolve(call.args[0]))) == dimensions
        and 0 not in weight.shape
    )


def _coded(graph: Dataflow, layers: Collection[relax.Var]) -> list[relax.Var]:
    """Tensors that are read as codes, in order, the inputs first."""
    coded: set[relax.Var] = set()
    order = graph.live()
    for reader in reversed(order):
        call = graph.call(reader, *ops.ALL)
        if call is None:
            continue
        if reader in layers:
            operands = [call.args[i] for i in _VALUES if i < len(call.args)]
        elif reader in coded and passes_codes(call):
            operands = list(call.args)
        elif reader in coded and rounds(call):
            operands = [arg for arg in call.args if _makes_codes(graph, arg, layers)]
        else:
            continue
        coded.update(
            v for v in map(graph.resolve, operands) if _is_values(v) and not unrounded(graph, v)
        )
    return [var for var in (*graph.inputs, *order) if var in coded]


def _makes_codes(graph: Dataflow, value: relax.Expr, layers: Collection[relax.Var]) -> bool:
    """Whether a value's producer can write codes."""
    value = graph.resolve(value)
    call = graph.call(value, *ops.ALL)
    return value in layers or (call is not None and (rounds(call) or passes_codes(call)))


def unrounded(graph: Dataflow, value: relax.Expr) -> bool:
    """Whether a value is a part of a layer's sum, which is not rounded before it is whole."""
    call = graph.call(value, *INTEGER_LAYERS)
    return call is not None and "unrounded" in ops.attributes(call)


def _is_values(value: relax.Expr) -> bool:
    return (
        isinstance(value, relax.Var)
        and isinstance(value.ty, relax.TensorType)
        and dtype_of(value) == "float32"
    )


def _groups(graph: Dataflow, coded: list[relax.Var]) -> tuple[tuple[relax.Var, ...], ...]:
    leader: dict[relax.Var, relax.Var] = {var: var for var in coded}

    def first(var: relax.Var) -> relax.Var:
        while leader[var] is not var:
            leader[var] = var = leader[leader[var]]
        return var

    passing = {
        var
        for var in coded
        if (call := graph.call(var, *ops.ALL)) is not None and passes_codes(call)
    }
    for var in passing:
        for operand in graph.operands(graph.exprs[var]):
            leader[first(var)] = first(operand)
    groups: dict[relax.Var, list[relax.Var]] = {}
    for var in coded:
        # What a file rounds stays as it is.
        if var not in passing and graph.call(var, ops.FAKE_QUANTIZE) is None:
            groups.setdefault(first(var), []).append(var)
    return tuple(map(tuple, groups.values()))
