"""Decide for each layer which kernel it gets, with the reason: the rewrite follows this, and so
does every report."""

from dataclasses import dataclass, replace

import numpy as np
from tvm import relax

from subpc.passes import ops
from subpc.passes.codes import stored_weight
from subpc.passes.dataflow import Dataflow, dtype_of, shape_of
from subpc.passes.detect_pattern import BlockPattern, detect_pattern
from subpc.passes.plan_layout import conv_geometry, family_by_rule, is_depthwise
from subpc.passes.plan_winograd import gain_over_direct
from subpc.passes.sparse_modes import check_sparse
from subpc.schedules.dot import QUAD
from subpc.schedules.isa import VectorIsa
from subpc.schedules.layout import FLOAT, round_up
from subpc.schedules.quantization import CODES

# Time of a sparse kernel for the same multiply-adds, against our best dense kernel, which has the
# channels in its lanes (the table of kernels in docs/performance.md). Direct: the index, and
# gathered planes that miss L1 more often. Flat: pixels in the lanes.
DIRECT_OVERHEAD = 1.04
FLAT_OVERHEAD = 1.15
# The same of kernels on codes: the index; instructions that pack the pixels of a quad of channels,
# for each that multiplies them by one filter's codes of one tap; and what both kernels do beside
# multiplying, as a share of the dense kernel's time.
QUAD_OVERHEAD, PACKING, QUAD_REST = 1.05, 3.0, 0.02
# A gain below this is within what layouts and neighbours change; the dense kernel is the safer
# choice.
MIN_GAIN = 1.05
# Rounding weights to eight bits leaves up to so many zeros; nobody prunes less.
_FEW_ZEROS = 0.1


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What was decided about one layer.

    pattern: the 1xN pattern to be used by the sparse kernel, None: dense. found: the pattern in the
    weights, used or not.
    reason: why it is dense, "" if sparse; the part before a colon is what the summary counts. gain:
    expected dense / chosen time. precision: what it computes in, "float32" or "int8"; why_float:
    the reason for the former in a network with codes; why_integers: for the latter, where it was
    chosen.
    """

    layer: str
    kernel: str
    pattern: BlockPattern | None
    found: BlockPattern | None
    zeros: float
    reason: str
    gain: float
    precision: str = "float32"
    why_float: str = ""
    why_integers: str = ""


def decide_layers(graph: Dataflow, isa: VectorIsa, sparse: str = "auto") -> dict[str, Decision]:
    """A decision for every convolution and fully connected layer, by layer name. sparse: "auto",
    "always" or "off"."""
    check_sparse(sparse)
    decisions: dict[str, Decision] = {}
    for _, call in graph.calls(ops.CONV2D, ops.LINEAR):
        name = ops.attributes(call)["name"]
        weight = stored_weight(graph, call)
        assert weight is not None, name
        whole = dtype_of(call.args[0]) == CODES
        decisions[name] = replace(
            _decide(call, name, weight, isa, sparse),
            precision="int8" if whole else "float32",
            why_float="" if whole else ops.attributes(call).get("why_float", ""),
            why_integers=ops.attributes(call).get("why_integers", "") if whole else "",
        )
    return decisions


def _decide(
    call: relax.Call, name: str, weight: np.ndarray, isa: VectorIsa, sparse: str
) -> Decision:
    zeros = 1.0 - np.count_nonzero(weight) / max(weight.size, 1)
    if call.op.name == ops.LINEAR:
        return _dense(
            name,
            "linear",
            None,
            zeros,
            "fully connected: reading the weights limits it, not arithmetic",
        )
    if ops.attributes(call)["groups"] != 1:
        kind = "depthwise" if is_depthwise(call) else "grouped"
        return _dense(
            name,
            f"{kind}_conv",
            None,
            zeros,
            f"{kind}: one input channel a filter leaves no block to skip"
            if kind == "depthwise"
            else "grouped: 1xN blocks are defined for groups = 1",
        )
    if ops.attributes(call)["out_shape"][2:] == (1, 1) and shape_of(call.args[0])[2:] == (1, 1):
        return _dense(
            name,
            "linear",
            None,
            zeros,
            "single pixel: reading the weights limits it, not arithmetic",
        )
    if sparse == "off":
        return _dense(name, "dense_conv", None, zeros, "sparse kernels switched off")
    found = detect_pattern(weight)
    if found is None:
        return _dense(name, "dense_conv", None, zeros, _no_pattern(weight, zeros))
    gain = expected_gain(call, found, isa)
    if sparse == "auto" and gain < MIN_GAIN:
        return _dense(
            name,
            "dense_conv",
            found,
            zeros,
            f"below threshold: {found.label} at {found.sparsity:.0%} would gain {gain:.2f}x",
        )
    return Decision(
        layer=name, kernel="bsr_conv", pattern=found, found=found, zeros=zeros, reason="", gain=gain
    )


def expected_gain(call: relax.Call, pattern: BlockPattern, isa: VectorIsa) -> float:
    """Time of our dense kernel over time of the sparse one, phase planes included."""
    if dtype_of(call.args[0]) == CODES:
        return gain_of_codes(call, pattern)
    work = max(1.0 - pattern.sparsity, 1e-3)
    dense = gain_over_direct(call, None, isa)
    if not family_by_rule(call, pattern.n, isa).sorts_strides:
        return gain_over_direct(call, pattern, isa) / dense / (DIRECT_OVERHEAD * work)
    geometry = conv_geometry(call)
    # An input channel's phase planes, written and read again, for each of its multiply-adds with
    # c_out filters.
    moved = (
        0.0
        if geometry.in_order
        else 2.0
        * FLOAT
        * len(geometry.phases)
        / (2.0 * shape_of(call.args[1])[0] * len(geometry.taps))
    )
    return 1.0 / dense / (FLAT_OVERHEAD * work + isa.flops_per_byte * moved)


def gain_of_codes(call: relax.Call, pattern: BlockPattern) -> float:
    """Time of the kernel that multiplies bytes, dense over sparse: it takes channels in quads, and
    a sparse layer packs those of each group anew."""
    filters, channels, *size = shape_of(call.args[1])
    taps = size[0] * size[1]
    kept = sum(round_up(int(count), QUAD) for count in pattern.kept.sum(axis=1))
    work = kept / (len(pattern.kept) * round_up(channels, QUAD))
    dense = 1.0 + PACKING / (filters * taps) + QUAD_REST
    return dense / (work * (QUAD_OVERHEAD + PACKING / (pattern.n * taps)) + QUAD_REST)


def _no_pattern(weight: np.ndarray, zeros: float) -> str:
    if zeros < 0.01:
        return "no zeros"
    if zeros < _FEW_ZEROS:
        return f"dense: {zeros:.0%} of the weights are zero"
    if weight.shape[0] % 4:
        return f"channels: {weight.shape[0]} filters are not a multiple of 4"
    return (
        f"no 1xN blocks: {zeros:.0%} of the weights are zero, but not in blocks of 4 to 32 filters"
    )


def _dense(
    name: str, kernel: str, found: BlockPattern | None, zeros: float, reason: str
) -> Decision:
    return Decision(
        layer=name, kernel=kernel, pattern=None, found=found, zeros=zeros, reason=reason, gain=1.0
    )
