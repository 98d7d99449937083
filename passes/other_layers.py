"""Convolutions without a kernel of ours: kept in reports under their own names, and carried through
legalisation."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import tvm
from tvm import relax, tirx

from subpc.passes import ops
from subpc.passes.dataflow import Dataflow, constant_of, shape_of

# Attribute of a PrimFunc: the layers that it computes, as their user knows them.
LAYERS = "subpc.layers"


@dataclass(frozen=True, kw_only=True)
class OtherLayer:
    """A convolution or product that runs in the fallback. zeros: share of zeros in its weights;
    pixels: results of each filter."""

    name: str
    kind: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    groups: int
    zeros: float
    pixels: int
    reason: str


def layer_order(module: tvm.IRModule) -> list[str]:
    """The names of all layers, in the order of the model; parts of one layer are that layer."""
    calls = Dataflow(module["main"]).calls(ops.CONV2D, ops.LINEAR, ops.OTHER_LAYER)
    return list(dict.fromkeys(ops.layer_of(call) for _, call in calls))


def other_layers(module: tvm.IRModule) -> dict[str, OtherLayer]:
    """Every layer that stays with the fallback, by name. Run before they are legalised."""
    graph = Dataflow(module["main"])
    found = [_other_layer(graph, call) for _, call in graph.calls(ops.OTHER_LAYER)]
    return {layer.name: layer for layer in found}


def _other_layer(graph: Dataflow, call: relax.Call) -> OtherLayer:
    a, weight = ops.attributes(call), graph.resolve(call.args[1])
    values, original, out = constant_of(weight), call.attrs["original"], a["out_shape"]
    convolution = a["operator"] != "relax.matmul"
    return OtherLayer(
        name=a["name"],
        kind="conv" if convolution else "linear",
        shape=shape_of(weight),
        strides=tuple(int(s) for s in original.strides) if convolution else (),
        groups=int(original.groups) if convolution else 1,
        zeros=0.0 if values is None else 1.0 - np.count_nonzero(values) / max(values.size, 1),
        pixels=int(np.prod((out[0], *out[2:]))) if convolution else int(np.prod(out[:-1])),
        reason=a["reason"],
    )


def legalize_layer(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """The operator that the layer was, as TVM legalises it, in a function that knows the layer's
    name."""
    a = ops.attributes(call)
    operator = tvm.ir.Op.get(a["operator"])
    original = builder.normalize(relax.Call(operator, list(call.args), call.attrs["original"]))
    legalise = operator.get_attr("FLegalize")
    made = legalise(builder, original) if legalise is not None else original
    if isinstance(made, relax.Call) and getattr(made.op, "name", "") == "relax.call_tir":
        function = builder.get()[made.args[0]]
        builder.update_func(made.args[0], function.with_attr(LAYERS, [a["name"]]))
    return made


def carry_names(module: tvm.IRModule) -> dict[str, list[str]]:
    """After operators were grouped into functions: the layers in each of them, by its name."""
    found = {}
    for variable, function in module.functions.items():
        if isinstance(function, relax.Function) and variable.name_hint != "main":
            names = [name for callee in _callees(function) for name in layers_of(module[callee])]
            if names:
                found[variable.name_hint] = names
    return found


def layers_of(function: tvm.ir.BaseFunc) -> list[str]:
    """The layers that a PrimFunc computes."""
    names = (
        function.attrs.get(LAYERS)
        if isinstance(function, tirx.PrimFunc) and function.attrs
        else None
    )
    return [str(name) for name in names] if names else []


def _callees(function: relax.Function) -> Iterator[tvm.ir.GlobalVar]:
    for block in function.body.blocks:
        for binding in block.bindings:
            value = binding.value
            if isinstance(value, relax.Call) and getattr(value.op, "name", "") == "relax.call_tir":
                yield value.args[0]
