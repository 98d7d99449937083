"""The entry that a layer gets in reports: what was found in its weights, what was decided, what it costs."""

from subpc.passes import ops
from subpc.passes.dataflow import shape_of
from subpc.passes.pipeline import Lowered
from subpc.report import LayerReport


def layer_report(lowered: Lowered, name: str) -> LayerReport:
    """Describe layer `name` of a lowered network."""
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
    index_bytes = 4 * int(used.kept.sum()) if used else 0
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
        bytes_dense=4 * weights,
        bytes_packed=int(4 * weights * density) + index_bytes,
    )
