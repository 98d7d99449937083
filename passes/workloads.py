"""Workloads of a network's convolutions, and what a tuned schedule changes about their
decisions."""

from collections.abc import Mapping
from dataclasses import replace

from tvm import relax

from subpc.passes import ops
from subpc.passes.dataflow import Dataflow, shape_of
from subpc.passes.decide_layers import Decision
from subpc.passes.plan_layout import find_clamps
from subpc.passes.program import Program
from subpc.schedules.families import family_of
from subpc.schedules.family import ignores_pattern, ignoring_pattern
from subpc.schedules.isa import VectorIsa
from subpc.schedules.workload import Choice, ConvWorkload


def conv_workloads(graph: Dataflow, decisions: Mapping[str, Decision]) -> dict[str, ConvWorkload]:
    """The workload of every convolution that has pixels to share out, by layer name."""
    clamps = find_clamps(graph)
    workloads = {}
    for var, call in graph.calls(ops.CONV2D):
        attrs = ops.attributes(call)
        single = shape_of(call.args[0])[2:] == (1, 1) and tuple(attrs["out_shape"][2:]) == (1, 1)
        if not (single and attrs["groups"] == 1):
            workloads[attrs["name"]] = _workload(
                var, call, decisions[attrs["name"]], attrs["name"] in clamps
            )
    return workloads


def _workload(var: relax.Var, call: relax.Call, decision: Decision, clamped: bool) -> ConvWorkload:
    found = decision.found
    attrs, x, weight = ops.attributes(call), shape_of(call.args[0]), shape_of(call.args[1])
    filters = weight[0] // attrs["groups"]
    return ConvWorkload(
        batch=x[0],
        source=(x[1], x[2], x[3]),
        out=(shape_of(var)[1], shape_of(var)[2], shape_of(var)[3]),
        kernel=(weight[2], weight[3]),
        stride=tuple(attrs["strides"]),
        padding=tuple(attrs["padding"][:2]),
        dilation=tuple(attrs["dilation"]),
        groups=attrs["groups"],
        n=found.n if found else 0,
        kept=int(found.kept.sum()) if found else weight[1] * (weight[0] // filters),
        uniform=found is None or found.uniform,
        residual=len(call.args) == 4,
        clamped=clamped,
        activation=attrs["activation"],
        precision=decision.precision,
    )


def apply_choices(
    decisions: Mapping[str, Decision], choices: Mapping[str, Choice]
) -> dict[str, Decision]:
    """The decisions with those layers changed whose tuned schedule ignores a pattern, or uses one
    that the default rule would not."""
    return {
        name: _decide(decision, choices[name]) if name in choices else decision
        for name, decision in decisions.items()
    }


def _decide(decision: Decision, choice: Choice) -> Decision:
    if ignores_pattern(choice):
        return replace(
            decision,
            kernel="dense_conv",
            pattern=None,
            reason="tuned: the dense kernel was measured to be faster",
            gain=1.0,
        )
    if family_of(choice).patterns and decision.found is not None and decision.pattern is None:
        return replace(decision, kernel="bsr_conv", pattern=decision.found, reason="")
    return decision


def chosen(
    program: Program,
    workloads: Mapping[str, ConvWorkload],
    decisions: Mapping[str, Decision],
    isa: VectorIsa,
) -> dict[str, Choice]:
    """The schedule that each layer of a lowered network got, by layer name."""
    found: dict[str, Choice] = {}
    for step in program.steps:
        choice, workload = step.kernel.choice(isa), workloads.get(step.layer)
        if choice is not None and workload is not None:
            ignored = workload.n and decisions[step.layer].pattern is None
            found[step.layer] = ignoring_pattern(choice) if ignored else choice
    return found
