"""The entry that a layer gets in reports: what was found in its weights, what was decided, what it
costs."""

import math
from dataclasses import replace

from subpc.library.report import FALLBACK, LayerReport
from subpc.passes import ops
from subpc.passes.dataflow import dtype_of, shape_of
from subpc.passes.other_layers import OtherLayer
from subpc.passes.pipeline import Lowered
from subpc.schedules.operand import Operand, floats, integers


def layer_report(lowered: Lowered, name: str) -> LayerReport:
    """Describe layer `name` of a lowered network."""
    if name in lowered.others:
        return _in_the_fallback(lowered.others[name])
    if name not in lowered.decisions:
        return _in_parts(lowered, name)
    decision, call = lowered.decisions[name], lowered.layers[name]
    attrs, shape = ops.attributes(call), shape_of(call.args[1])
    pattern = decision.found
    pixels = 1
    for extent in (attrs["out_shape"][0], *attrs["out_shape"][2:]):
        pixels *= extent
    weights = 1
    for extent in shape:
        weights *= extent
    used = decision.pattern
    density = 1.0 - used.sparsity if used else 1.0
    index_bytes = integers(int(used.kept.sum())).bytes if used else 0
    stored = Operand(weights, dtype_of(call.args[1])).bytes
    scales = floats(shape[0]).bytes if decision.precision != "float32" else 0
    return LayerReport(
        name=name,
        kind="conv" if call.op.name == ops.CONV2D else "linear",
        shape=shape,
        stride=tuple(attrs.get("strides", ())),
        groups=attrs.get("groups", 1),
        pattern=pattern.label if pattern else "dense",
        n=pattern.n if pattern else 0,
        sparsity=decision.zeros,
        kernel=decision.kernel,
        sparse=used is not None,
        reason=decision.reason,
        expected_gain=decision.gain,
        flops_dense=2 * weights * pixels,
        flops_useful=int(2 * weights * pixels * density),
        bytes_dense=floats(weights).bytes,
        bytes_packed=int(stored * density) + index_bytes + scales,
        precision=decision.precision,
        why_float=decision.why_float,
        why_integers=decision.why_integers,
    )


def _in_parts(lowered: Lowered, name: str) -> LayerReport:
    """A layer that several convolutions compute: what the largest of them is, and what all cost
    together."""
    calls = [call for call in lowered.layers.values() if ops.layer_of(call) == name]
    parts = [layer_report(lowered, ops.attributes(call)["name"]) for call in calls]
    weights = sum(part.bytes_dense for part in parts)
    attrs = ops.attributes(calls[0])
    return replace(
        max(parts, key=lambda part: part.flops_dense),
        name=name,
        shape=attrs["layer_shape"],
        stride=attrs["layer_strides"],
        sparsity=sum(part.sparsity * part.bytes_dense for part in parts) / weights,
        flops_dense=sum(part.flops_dense for part in parts),
        flops_useful=sum(part.flops_useful for part in parts),
        bytes_dense=weights,
        bytes_packed=sum(part.bytes_packed for part in parts),
    )


def _in_the_fallback(layer: OtherLayer) -> LayerReport:
    weights = math.prod(layer.shape)
    flops = 2 * weights * layer.pixels
    return LayerReport(
        name=layer.name,
        kind=layer.kind,
        shape=layer.shape,
        stride=layer.strides,
        groups=layer.groups,
        pattern="dense",
        n=0,
        sparsity=layer.zeros,
        kernel=FALLBACK,
        sparse=False,
        reason=layer.reason,
        expected_gain=1.0,
        flops_dense=flops,
        flops_useful=flops,
        bytes_dense=floats(weights).bytes,
        bytes_packed=floats(weights).bytes,
    )
