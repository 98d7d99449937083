"""Rows of pixels as vectors, strided loads, register variables, and loops that split work over
threads."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from tvm import tirx
from tvm.tirx.script import builder as T

from subpc.schedules.layout import LINE

# Starting a parallel loop costs about 0.75 us, so a task should last longer than this.
TASK_NS = 2000.0
# Rows of up to this many vectors are unrolled; longer ones become a loop.
MAX_UNROLLED_VECTORS = 8


def load(buffer: Any, index: Any, lanes: int) -> Any:
    """`lanes` neighbouring elements from `index` on, as one vector."""
    return buffer[tirx.Ramp(index, 1, lanes)]


def store(buffer: Any, index: Any, value: Any, lanes: int) -> None:
    """Store a vector to `lanes` neighbouring elements from `index` on."""
    T.buffer_store(buffer, value, [tirx.Ramp(index, 1, lanes)])


def prefetch(buffer: Any, index: Any, floats: int, *, write: bool) -> None:
    """Ask for the cache lines of `floats` elements from the line-aligned `index` on.

    write: take them away from the other cores now, while there is something to compute. Without it
    every store to a line that another core has read waits for that core: 7 GB/s instead of 49
    (docs/performance.md).
    """
    for at in range(0, floats, LINE):
        T.evaluate(
            tirx.call_intrin(
                "void", "tirx.prefetch", T.address_of(buffer[index + at]), int(write), 3, 1
            )
        )


def splat(value: Any, lanes: int) -> Any:
    """One scalar in every lane."""
    return tirx.Broadcast(value, lanes)


def segments(width: int, lanes: int) -> list[tuple[int, int]]:
    """(start, lanes) of vectors that cover exactly `width` floats: the last one overlaps its
    neighbour, none overruns the row."""
    if width == 0:
        return []
    while lanes > width:
        lanes //= 2
    starts = [*range(0, width - lanes, lanes), width - lanes]
    return [(start, lanes) for start in starts]


def for_row(width: int, lanes: int, body: Callable[[Any, int], None]) -> None:
    """body(start, lanes) for vectors that cover a row; `start` is an int, or a loop variable in
    long rows."""
    parts = segments(width, lanes)
    if len(parts) > MAX_UNROLLED_VECTORS:
        with T.serial(0, width // lanes) as i:
            body(i * lanes, lanes)
        parts = parts[-1:] if width % lanes else []
    for start, size in parts:
        body(start, size)


def fetch(buffer: Any, index: Any, lanes: int, stride: int = 1) -> Any:
    """`lanes` elements from `index` on, `stride` apart; reads nothing beyond the last of them.

    Stride 2 takes two overlapping loads and one shuffle (one vpermt2ps); other strides load element
    by element.
    """
    if lanes == 1:
        return buffer[index]
    if stride == 1:
        return load(buffer, index, lanes)
    if stride == 2:
        # The second vector starts one early, so that its last element is the last one wanted.
        low, high = load(buffer, index, lanes), load(buffer, index + (lanes - 1), lanes)
        return shuffle([low, high], [*range(0, lanes, 2), *range(lanes + 1, 2 * lanes, 2)])
    return shuffle([buffer[index + i * stride] for i in range(lanes)], list(range(lanes)))


def shuffle(vectors: list[Any], picks: list[int]) -> Any:
    """The elements `picks` of the concatenated vectors, as one vector (or scalar)."""
    return tirx.Shuffle(vectors, [tirx.IntImm("int32", p) for p in picks])


def put(buffer: Any, index: Any, value: Any, lanes: int) -> None:
    """Store a vector, or one scalar if `lanes` is 1."""
    if lanes == 1:
        T.buffer_store(buffer, value, [index])
    else:
        store(buffer, index, value, lanes)


def put_first(buffer: Any, index: Any, register: "Register", count: int) -> None:
    """Store the first `count` lanes of a register, as pieces that may overlap, and touch nothing
    behind them."""
    for start, lanes in segments(count, register.lanes):
        part = (
            register.get()
            if lanes == register.lanes
            else shuffle([register.get()], list(range(start, start + lanes)))
        )
        put(buffer, index + start, part, lanes)


class Register:
    """A vector variable. TVM keeps small global-scope arrays on the stack, and LLVM moves them into
    a register."""

    def __init__(self, lanes: int, value: Any, dtype: str = "float32") -> None:
        self.lanes = lanes
        self._array = T.alloc_buffer((lanes,), dtype)
        self.set(value)

    def get(self) -> Any:
        return fetch(self._array, 0, self.lanes)

    def head(self, lanes: int) -> Any:
        """The first `lanes` lanes."""
        return fetch(self._array, 0, lanes)

    def slice(self, start: int, lanes: int) -> Any:
        """`lanes` lanes from `start` on."""
        return (
            self.get()
            if lanes == self.lanes
            else shuffle([self.get()], list(range(start, start + lanes)))
        )

    def set(self, value: Any) -> None:
        put(self._array, 0, value, self.lanes)


def transpose(rows: list[Register], lanes: int) -> list[Register]:
    """The transpose of a square of `lanes` vectors, in log2(lanes) rounds of two-vector shuffles.

    Round h exchanges the off-diagonal halves of every 2h x 2h block (Eklundh, 1972).
    """
    half = 1
    while half < lanes:
        done: list[Register | None] = [None] * lanes
        for i in (i for i in range(lanes) if not i & half):
            a, b = rows[i], rows[i + half]
            upper = [lane if not lane & half else lanes + lane - half for lane in range(lanes)]
            lower = [lane + half if not lane & half else lanes + lane for lane in range(lanes)]
            done[i] = Register(lanes, shuffle([a.get(), b.get()], upper))
            done[i + half] = Register(lanes, shuffle([a.get(), b.get()], lower))
        rows = [row for row in done if row is not None]
        half *= 2
    return rows


def divisor_at_least(total: int, wanted: float) -> int:
    """The smallest divisor of `total` that is not below `wanted`, else `total`."""
    return next(d for d in range(1, total + 1) if total % d == 0 and (d >= wanted or d == total))


@contextmanager
def units(count: int, nanoseconds: float) -> Iterator[Any]:
    """A loop over `count` independent units of about `nanoseconds` each, in parallel where that
    pays; yields its number."""
    tasks = max(1, min(count, int(count * nanoseconds / TASK_NS)))
    each = -(-count // tasks)
    tasks = -(-count // each)
    with ExitStack() as stack:
        if tasks == 1:
            yield stack.enter_context(T.serial(0, count))
            return
        task = stack.enter_context(T.parallel(0, tasks))
        if each == 1:
            yield task
            return
        unit = task * each + stack.enter_context(T.serial(0, each))
        if count % each:
            stack.enter_context(T.If(unit < count))
            stack.enter_context(T.Then())
        yield unit


@contextmanager
def plane_rows(planes: int, rows: int, row_nanoseconds: float) -> Iterator[tuple[Any, Any]]:
    """A loop over all rows of all planes, split into blocks of rows that make a task; yields
    (plane, row)."""
    block = divisor_at_least(rows, TASK_NS / row_nanoseconds)
    blocks = rows // block
    with units(planes * blocks, block * row_nanoseconds) as unit, T.serial(0, block) as r:
        if blocks == 1:
            yield unit, r
        else:
            yield unit // blocks, (unit % blocks) * block + r


@contextmanager
def rows_of_planes(planes: int, rows: int, row_nanoseconds: float) -> Iterator[tuple[Any, Any]]:
    """The same rows of all planes one after the other: a thread gets its part of the image in every
    plane; yields (plane, row)."""
    with units(rows * planes, row_nanoseconds) as unit:
        yield unit % planes, unit // planes
