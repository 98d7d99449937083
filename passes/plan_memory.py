"""Give every workspace buffer an offset; buffers whose lifetimes do not overlap share memory."""

from collections.abc import Hashable
from dataclasses import dataclass

from subpc.passes.program import BLOB, Location, Program
from subpc.schedules.layout import FLOAT, LINE_BYTES, MAX_TILE, itemsize, round_up

# Consecutive buffers start this many bytes apart from a multiple of 4 KB: same pixels of two
# tensors then do not alias in L1.
STAGGER = 5 * LINE_BYTES
# A kernel may store a whole tile behind the last pixel of a tensor.
OVERRUN = MAX_TILE * FLOAT


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """offsets: where each buffer begins in the workspace; size: of the workspace; in bytes."""

    offsets: tuple[int, ...]
    size: int

    @property
    def floats(self) -> int:
        """Size of the workspace as entry points take it."""
        return self.size // itemsize(BLOB)

    def resolve(self, location: Location) -> tuple[str, int, int]:
        """(space, which input or output, offset in bytes) of an operand."""
        if location.space == "workspace":
            return "workspace", 0, self.offsets[location.index] + location.offset
        return location.space, location.index, location.offset


def plan_memory(program: Program) -> MemoryPlan:
    """A place for each buffer. A framed one is reused only where the same bytes stay zero (see
    Buffer)."""
    first, last = _lifetimes(program)
    kinds = _kinds(program)
    offsets = [-1] * len(program.buffers)
    free: dict[Hashable, list[tuple[int, int]]] = {}
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
            fits = min(
                (slot for slot in room if slot[1] >= buffer.bytes),
                key=lambda slot: slot[1],
                default=None,
            )
            if fits is not None:
                room.remove(fits)
                offsets[index] = fits[0]
            else:
                offsets[index] = total
                total += round_up(buffer.bytes + OVERRUN, LINE_BYTES) + STAGGER
        for index in expiring.get(step, []):
            free.setdefault(kinds[index], []).append((offsets[index], program.buffers[index].bytes))
    return MemoryPlan(offsets=tuple(offsets), size=total + OVERRUN)


def _kinds(program: Program) -> list[Hashable]:
    """For each buffer, what has to be equal for two to share memory: the layout, and what of it is
    written.

    The planes of a phase fill less of a frame than an activation, or one row or column more: where
    one has data, the other counts on zeros that nobody writes again.
    """
    written = {
        step.operands[-1].index: step.kernel.footprint
        for step in program.steps
        if step.operands and step.kernel.footprint
    }
    return [
        None if buffer.layout is None else (buffer.layout, written.get(index), buffer.fill)
        for index, buffer in enumerate(program.buffers)
    ]


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
