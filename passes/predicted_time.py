"""What a layer is expected to take in float32 and in bytes, before any kernel is made: by the costs
that choose between dense and sparse kernels. Good for comparing the two, not for a clock."""

import math
from dataclasses import dataclass

from tvm import relax

from subpc.passes import ops
from subpc.passes.codes import weight_codes
from subpc.passes.dataflow import Dataflow, shape_of
from subpc.passes.decide_layers import PACKING, QUAD_REST, Decision, gain_of_codes
from subpc.passes.plan_layout import is_flat
from subpc.passes.plan_winograd import gain_over_direct
from subpc.schedules.dot import QUAD
from subpc.schedules.isa import VectorIsa
from subpc.schedules.layout import FLOAT, round_up
from subpc.schedules.quad_sums import instructions

# Share of the multiply-adds that a core can do: dense kernels, and those of few filters a group
# (docs/performance.md: 0.4 to 0.77 for 5x5 filters of one channel).
DENSE_SHARE, GROUPED_SHARE = 0.95, 0.6
# Time of one of the instructions that add products in 16 bits, against a multiply-add: what the
# table in docs/integers.md was measured at, for 2 to 4 instructions.
NARROW = 0.7
# Instructions that make bytes of a vector of sums.
FINISH = 5.0
# Of a filter of few channels on 4 vectors of pixels: loads and products of four taps of a row, and
# what makes bytes of the sums (docs/integers.md: 43 for 3x3 filters).
TAP_LOADS, TAP_PRODUCTS, GROUPED_FINISH = 2.0, 4.0, 25.0
# What converting a tensor reads and writes for one element, and starting a pass over it.
CONVERTED_BYTES, START_NS = 5, 1000.0


@dataclass(frozen=True, kw_only=True)
class Times:
    """ns of one core, in float32 and in bytes."""

    floats: float
    integers: float

    def __add__(self, other: "Times") -> "Times":
        return Times(floats=self.floats + other.floats, integers=self.integers + other.integers)


def predicted_times(graph: Dataflow, var: relax.Var, decision: Decision, isa: VectorIsa) -> Times:
    """Of a conv2d or linear of floats with constant weights; decision: what it gets in float32."""
    call = graph.exprs[var]
    read = [math.prod(shape_of(graph.resolve(arg))) for arg in (call.args[0], *call.args[3:])]
    density = 1.0 - decision.pattern.sparsity if decision.pattern else 1.0
    moved = sum(read) + math.prod(shape_of(var)) + math.prod(shape_of(call.args[1])) * density
    floats, integers = _work(graph, var, decision, isa)
    return Times(
        floats=max(floats * isa.fma_ns, _moving(FLOAT * moved, isa)),
        integers=max(integers * isa.fma_ns, _moving(moved, isa)),
    )


def conversion_ns(elements: int, isa: VectorIsa) -> float:
    """Of a pass that makes codes of a tensor of floats, or floats of codes."""
    return _moving(CONVERTED_BYTES * elements, isa) + START_NS


def _moving(bytes_: float, isa: VectorIsa) -> float:
    return bytes_ * isa.flops_per_byte / (2 * isa.lanes) * isa.fma_ns


def _work(
    graph: Dataflow, var: relax.Var, decision: Decision, isa: VectorIsa
) -> tuple[float, float]:
    """Multiply-adds of one vector that take as long as the instructions of either kernel."""
    call = graph.exprs[var]
    weight, filters = shape_of(call.args[1]), _filters(var, call)
    results = math.prod(shape_of(var)) / isa.lanes  # vectors
    products = results * math.prod(weight) / filters
    step = _step(graph, call, isa)
    if decision.kernel == "linear":
        return products / DENSE_SHARE, products / QUAD * step + results * FINISH
    taps = math.prod(weight[2:])
    if not is_flat(call):
        rows = weight[1] * weight[2] * (TAP_LOADS + TAP_PRODUCTS * step * weight[3] / 3)
        return products / GROUPED_SHARE, results / QUAD * (rows + GROUPED_FINISH)
    floats = products / DENSE_SHARE / gain_over_direct(call, None, isa) / decision.gain
    # Where there are few channels, each tap is one.
    channels = weight[1] if weight[1] >= QUAD else weight[1] * taps
    dense = products / QUAD * step * round_up(channels, QUAD) / channels
    dense *= 1.0 + PACKING / (filters * taps) + QUAD_REST
    gain = gain_of_codes(call, decision.pattern) if decision.pattern else 1.0
    return floats, dense / gain + results * FINISH


def _filters(var: relax.Var, call: relax.Call) -> int:
    return shape_of(var)[1] if call.op.name == ops.CONV2D else shape_of(var)[-1]


def _step(graph: Dataflow, call: relax.Call, isa: VectorIsa) -> float:
    """Time of four products in each lane, in multiply-adds. Weights of floats are rounded so that
    pairs fit 16 bits, those of a file may have to be words."""
    if isa.dot == "vnni":
        return 1.0
    return NARROW * instructions(0 if weight_codes(graph, call) is not None else 1)
