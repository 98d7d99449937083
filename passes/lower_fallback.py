"""Lowering of TIR functions from TVM's operator library: compact arrays in, compact arrays out."""

from tvm import relax

from subpc.passes.lower import Lowering, Place, compact_layout
from subpc.passes.other_layers import LAYERS, layers_of
from subpc.passes.program import Location
from subpc.schedules.fallback import Fallback


def lower_call_tir(low: Lowering, var: relax.Var, call: relax.Call) -> None:
    """A relax.call_tir, with one or several results."""
    function = low.module[call.args[0]]
    inputs = [low.compact(arg) for arg in low.graph.operands(call.args[1])]
    if isinstance(call.args[1], relax.Var):
        inputs = [low.compact(field) for field in low.graph.operands(low.graph.expr(call.args[1]))]
    outputs = _results(low, var)
    name = str(call.args[0].name_hint)
    layers = layers_of(function)
    kernel = Fallback.of(function.without_attr(LAYERS) if layers else function, name)
    operands = dict(zip(kernel.operands, [*inputs, *outputs], strict=True))
    low.emit(layers[0] if layers else name, kernel, operands)


def _results(low: Lowering, var: relax.Var) -> list[Location]:
    if not isinstance(var.ty, relax.TupleType):
        return [low.define(var).location]
    places = []
    for field in var.ty.fields:
        layout = compact_layout(tuple(int(extent) for extent in field.shape), str(field.dtype))
        places.append(Place(location=low.new_buffer(layout), layout=layout))
    low.places[var] = places
    return [place.location for place in places]
