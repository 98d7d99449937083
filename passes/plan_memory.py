"""Give every workspace buffer an offset; buffers whose lifetimes do not overlap share memory."""

from subpc.passes.program import Location, Program
from subpc.schedules.layout import LINE, MAX_TILE, round_up
from subpc.schedules.relayout import PhaseSplit

# Consecutive buffers start this many floats apart from a multiple of 4 KB: same pixels of two tensors then do not alias in L1.
STAGGER = 5 * LINE


def plan_memory(program: Program) -> tuple[list[int], int]:
    """(offset of each buffer in floats, total floats). A framed buffer is reused only where the same floats stay zero (see Buffer)."""
    first, last = _lifetimes(program)
    kinds = _kinds(program)
    offsets = [-1] * len(program.buffers)
    free: dict[object, list[tuple[int, int]]] = {}
    total = 0
    starting: dict[int, list[int]] = {}
    expiring: dict[int, list[int]] = {}
    for index, end in last.items():
        starting.setdefault(first[index], []).append(index)
        expiring.setdefault(end, []).append(index)
    for step in range(len(program.steps)):
        for index in sorted(starting.get(step, [])):
            buffer = program.buffers[index]
            room = free.setdefault(kinds[index], [])
            fits = min((slot for slot in room if slot[1] >= buffer.floats), key=lambda slot: slot[1], default=None)
            if fits is not None:
                room.remove(fits)
                offsets[index] = fits[0]
            else:
                offsets[index] = total
                total += round_up(buffer.floats + MAX_TILE, LINE) + STAGGER
        for index in expiring.get(step, []):
            free.setdefault(kinds[index], []).append((offsets[index], program.buffers[index].floats))
    return offsets, total + MAX_TILE


def _kinds(program: Program) -> list[object]:
    """For each buffer, what has to be equal for two to share memory: the layout, and where phases lie in it.

    The planes of a phase fill less of a frame than an activation, or one row or column more: where one has data, the other counts
    on zeros that nobody writes again.
    """
    phases: dict[int, tuple[object, ...]] = {}
    for step in program.steps:
        if isinstance(step.kernel, PhaseSplit):
            source = step.kernel.source.frame
            phases[step.operands[-1].index] = (source.height, source.width, step.kernel.stride, step.kernel.phases)
    return [None if buffer.layout is None else (buffer.layout, phases.get(index)) for index, buffer in enumerate(program.buffers)]


def _lifetimes(program: Program) -> tuple[dict[int, int], dict[int, int]]:
    """First and last step that touches each buffer."""
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for number, step in enumerate(program.steps):
        for operand in step.operands:
            if operand.space == "workspace":
                first.setdefault(operand.index, number)
                last[operand.index] = number
    return first, last


def resolve(location: Location, offsets: list[int]) -> tuple[str, int, int]:
    """(space, which input or output, offset in floats) of an operand."""
    if location.space == "workspace":
        return "workspace", 0, offsets[location.index] + location.offset
    return location.space, location.index, location.offset
