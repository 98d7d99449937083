"""Consecutive kernel calls become one where the schedule of the first says so
(schedules/joined.py)."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from subpc.passes.program import Location, Program, Step, WeightStore
from subpc.schedules.joined import Joined, can_join
from subpc.schedules.stage import Stage

# Layers of one loop: an inverted residual, or the second half of a bottleneck and the layer after
# it.
LONGEST = 3

Touching = dict[
    tuple[str, int], set[int]
]  # buffer -> the numbers of the steps that read or write it


def join_steps(program: Program, weights: WeightStore) -> None:
    """Join every run of steps whose first schedule is `joined`; all steps stay, and nothing is
    called for those that have been joined.

    Which runs there are does not depend on who is to be joined: else a schedule of one layer would
    decide about others.
    """
    for first, length in _runs(program):
        tile = _stages(program.steps[first : first + 1])[0].tile
        count = min(length, 1 + tile.joined)
        if count > 1:
            _join(program, weights, first, count, tile.bands)


def joinable(program: Program) -> dict[str, int]:
    """The layers that can be computed together with those after them, and how many those are."""
    return {program.steps[first].layer: length - 1 for first, length in _runs(program)}


def _runs(program: Program) -> list[tuple[int, int]]:
    """(number of the first step, length), from the first step on; an expansion rather begins a run
    of its own than ends one."""
    runs, first, touching = [], 0, _touching(program)
    while first < len(program.steps):
        length = 1
        while (
            length < LONGEST
            and first + length < len(program.steps)
            and _continues(program, touching, first, first + length)
        ):
            length += 1
        if length > 1:
            runs.append((first, length))
        first += length
    return runs


def _touching(program: Program) -> Touching:
    found: Touching = {}
    for number, step in enumerate(program.steps):
        for place in step.operands:
            found.setdefault((place.space, place.index), set()).add(number)
    return found


def _continues(program: Program, touching: Touching, first: int, number: int) -> bool:
    before, step = program.steps[number - 1 : number + 1]
    if not _reads(step, before) or not _can_join(program, touching, first, number):
        return False
    after = program.steps[number + 1] if number + 1 < len(program.steps) else None
    return _overlaps(step) or after is None or not (_overlaps(after) and _reads(after, step))


def _overlaps(step: Step) -> bool:
    return isinstance(step.kernel, Stage) and step.kernel.overlaps


def _reads(step: Step, before: Step) -> bool:
    stages = isinstance(step.kernel, Stage) and isinstance(before.kernel, Stage)
    return stages and _named(step)["x"] == _named(before)["y"]


def _stages(steps: Sequence[Step]) -> tuple[Stage, ...]:
    return tuple(step.kernel for step in steps if isinstance(step.kernel, Stage))


def _can_join(program: Program, touching: Touching, first: int, last: int, bands: int = 1) -> bool:
    """Whether the steps first .. last can be one kernel, and none of its tasks overwrites what
    another one still reads."""
    steps, kept = program.steps[first : last + 1], _kept(program, touching, first, last)
    stages = _stages(steps)
    if not can_join(stages, kept, bands):
        return False
    x = _named(steps[0])["x"]
    written = [_named(step)["y"] for step, wanted in zip(steps, kept, strict=True) if wanted]
    return _same_tensor(written[-1], x, stages[-1]) or not any(_same_buffer(y, x) for y in written)


def _kept(program: Program, touching: Touching, first: int, last: int) -> tuple[bool, ...]:
    """For each step, whether anything but the next step reads its result; the last one's is wanted
    in any case."""
    kept = []
    for number in range(first, last):
        result = _named(program.steps[number])["y"]
        beside = [place for name, place in _named(program.steps[number + 1]).items() if name != "x"]
        others = touching[result.space, result.index] - {number, number + 1}
        kept.append(
            result.space != "workspace"
            or bool(others)
            or any(_same_buffer(place, result) for place in beside)
        )
    return (*kept, True)


def _same_buffer(a: Location, b: Location) -> bool:
    return (a.space, a.index) == (b.space, b.index)


def _same_tensor(y: Location, x: Location, last: Stage) -> bool:
    """Whether the last result overwrites the source of the first in place, which `_detach` can
    prevent."""
    return last.detaches and last.epilogue.in_place and y == x


def _named(step: Step) -> dict[str, Location]:
    return dict(zip(step.kernel.operands, step.operands, strict=True))


def _join(program: Program, weights: WeightStore, first: int, count: int, bands: int) -> None:
    last = first + count - 1
    if not _can_join(program, _touching(program), first, last, bands):
        return
    if _same_buffer(_named(program.steps[last])["y"], _named(program.steps[first])["x"]):
        _detach(program, last)
    steps, kept = program.steps[first : last + 1], _kept(program, _touching(program), first, last)
    kernel = Joined(stages=_stages(steps), kept=kept, bands=bands)
    operands: dict[str, Location] = {}
    for number, (step, stage) in enumerate(zip(steps, kernel.stages, strict=True)):
        named = _named(step)
        if "index" in named:
            named["index"] = _for_planes(
                weights, named["index"], stage, kernel.source_plane(number)
            )
        operands |= {f"{name}_{number}": place for name, place in named.items()}
    together = replace(
        steps[0], kernel=kernel, operands=tuple(operands[name] for name in kernel.operands)
    )
    results = [
        (step.operands[-1],) if wanted else () for step, wanted in zip(steps, kept, strict=True)
    ]
    joined = [
        replace(step, operands=result, joined=True)
        for step, result in zip(steps[1:], results[1:], strict=True)
    ]
    program.steps[first : last + 1] = [together, *joined]


def _for_planes(weights: WeightStore, index: Location, kernel: Stage, plane: int) -> Location:
    """The index of kept channels for planes of another size."""
    if plane == kernel.source.frame.plane:
        return index
    offsets = weights.array(index, kernel.sizes()["index"])
    return weights.add(offsets // np.int32(kernel.source.frame.plane) * np.int32(plane))


def _detach(program: Program, number: int) -> None:
    """Give the result of a step that overwrites its residual a buffer of its own."""
    step = program.steps[number]
    (stage,), old = _stages([step]), _named(step)
    program.buffers.append(program.buffers[old["y"].index])
    new = replace(old["y"], index=len(program.buffers) - 1)
    kernel = stage.detached()
    places = old | {"residual": old["y"], "y": new}
    program.steps[number] = replace(
        step, kernel=kernel, operands=tuple(places[name] for name in kernel.operands)
    )
    for later in range(number + 1, len(program.steps)):
        moved = tuple(
            replace(p, index=new.index) if _same_buffer(p, old["y"]) else p
            for p in program.steps[later].operands
        )
        program.steps[later] = replace(program.steps[later], operands=moved)
