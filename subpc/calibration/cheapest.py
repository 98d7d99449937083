"""Which layers compute in bytes, so that all of them and the conversions between them take least
time."""

from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from tvm import relax

from subpc.calibration.places import Places
from subpc.passes import ops
from subpc.passes.codes import averages_codes, passes_codes
from subpc.passes.dataflow import Dataflow, shape_of
from subpc.passes.decide_layers import Decision
from subpc.passes.predicted_time import Times, conversion_ns, predicted_times
from subpc.schedules.isa import VectorIsa

_VALUES = (0, 3)
# Below this nothing is left of a capacity but rounding.
_NOTHING_NS = 1e-3


@dataclass(frozen=True, kw_only=True)
class Costs:
    """times: of each layer by name; between: ns where one of two layers computes floats and the
    other one bytes; alone: ns where a layer of bytes reads what is always floats."""

    times: Mapping[str, Times]
    between: Mapping[tuple[str, str], float] = field(default_factory=dict)
    alone: Mapping[str, float] = field(default_factory=dict)


def costs_of(
    graph: Dataflow, places: Places, decisions: Mapping[str, Decision], isa: VectorIsa
) -> Costs:
    """Of the layers that can compute in bytes; several convolutions of one layer go together."""
    times: dict[str, Times] = {}
    between: dict[tuple[str, str], float] = {}
    alone: dict[str, float] = {}
    for var in places.layers:
        call = graph.exprs[var]
        name, decision = ops.layer_of(call), decisions[ops.attributes(call)["name"]]
        found = predicted_times(graph, var, decision, isa)
        times[name] = times[name] + found if name in times else found
        for index in _VALUES[: len(call.args) - 2]:
            source = graph.resolve(call.args[index])
            ns = conversion_ns(_size(source), isa)
            for producer in _producers(graph, source, places):
                if producer is None:
                    alone[name] = alone.get(name, 0.0) + ns
                elif producer != name:
                    between[producer, name] = between.get((producer, name), 0.0) + ns
    return Costs(times=times, between=between, alone=alone)


def cheapest(costs: Costs, in_floats: Collection[str] = ()) -> set[str]:
    """The layers that compute in bytes; those `in_floats` do not.

    The smallest cut of a network of pipes: from "bytes" to each layer as much as it takes in
    float32, from it to "float32" what it takes in bytes, and between layers what converting takes.
    What is cut is paid; what can still be reached from "bytes" is on that side.
    """
    pipes: dict[str | bool, dict[str | bool, float]] = {True: {}, False: {}}
    for name, times in costs.times.items():
        integers = times.integers + costs.alone.get(name, 0.0)
        pipes[name] = {False: float("inf") if name in in_floats else integers}
        pipes[True][name] = times.floats
    for (first, second), ns in costs.between.items():
        pipes[first][second] = pipes[first].get(second, 0.0) + ns
        pipes[second][first] = pipes[second].get(first, 0.0) + ns
    while False in (came := _reached(pipes)):
        path: list[str | bool] = [False]
        while path[-1] is not True:
            path.append(came[path[-1]])
        steps = list(zip(path[1:], path, strict=False))
        flow = min(pipes[a][b] for a, b in steps)
        for a, b in steps:
            pipes[a][b] -= flow
            pipes[b][a] = pipes[b].get(a, 0.0) + flow
    return {name for name in came if isinstance(name, str)}


def _reached(
    pipes: Mapping[str | bool, Mapping[str | bool, float]],
) -> dict[str | bool, str | bool]:
    """What can be reached from "bytes" (True), and from where, by the fewest steps; no further than
    "float32" (False)."""
    came: dict[str | bool, str | bool] = {True: True}
    waiting: deque[str | bool] = deque([True])
    while waiting and False not in came:
        here = waiting.popleft()
        for there, ns in pipes[here].items():
            if ns > _NOTHING_NS and there not in came:
                came[there] = here
                waiting.append(there)
    return came


def _size(var: relax.Expr) -> int:
    size = 1
    for extent in shape_of(var):
        size *= extent
    return size


def _producers(graph: Dataflow, value: relax.Expr, places: Places) -> list[str | None]:
    """The layers whose results a value's elements are, None for what is always floats. Elementwise
    passes and means read and write either, and an input of the network is copied anyway: they are
    not there."""
    value = graph.resolve(value)
    if not isinstance(value, relax.Var) or value not in graph.exprs:
        return []
    call = graph.call(value, *ops.ALL)
    if value in places.layers:
        return [ops.layer_of(graph.exprs[value])]
    if call is not None and passes_codes(call):
        return [p for arg in graph.operands(call) for p in _producers(graph, arg, places)]
    free = call is not None and (call.op.name == ops.ELEMENTWISE or averages_codes(call))
    return [] if free else [None]
