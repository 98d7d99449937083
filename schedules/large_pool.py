"""Pooling windows that are too large to be written out tap by tap: loops over the rows of each
window, vectors along its columns."""

from typing import Any

from tvm import tirx
from tvm.tirx.script import builder as T

from subpc.schedules.vector import Register, fetch, for_row, put, shuffle, splat

# Code for windows of up to this many taps is written out: the 13x13 of spatial pyramids is among
# them. Means have more borders to tell.
MAX_UNROLLED_TAPS = {"max": 169, "avg": 81}


class LargeWindows:
    """Emits one row of outputs, a window after the other; `pool` is a Pool2d."""

    def __init__(self, pool: Any, buffers: list[Any], plane: Any, row: Any) -> None:
        self.p, (self.x, self.y) = pool, buffers
        self.row, self.numbers = row, pool.numbers
        self.source = plane * pool.source.frame.plane + pool.source.frame.first
        self.write = (
            plane * pool.out.frame.plane + row * pool.out.frame.pitch + pool.out.frame.first
        )

    def emit(self, lanes: int) -> None:
        """Columns whose windows are whole as vectors where they are neighbours, the others one by
        one."""
        p, width, inner = self.p, self.p.out.frame.width, range(0)
        if p.stride[1] == 1:
            reach = (p.kernel[1] - 1) * p.dilation[1]
            inner = range(p.padding[1], min(width, p.source.frame.width - reach + p.padding[1]))
        for columns in [range(inner.start), range(inner.stop, width)] if inner else [range(width)]:
            with T.serial(columns.start, columns.stop) as column:
                self.window(column, self.taps_at_once(lanes))
        for_row(len(inner), lanes, lambda at, size: self.vector(inner.start + at, size))

    def taps_at_once(self, lanes: int) -> int:
        """Dilated taps are not neighbours: they are taken one by one."""
        while lanes > (self.p.kernel[1] if self.p.dilation[1] == 1 else 1):
            lanes //= 2
        return lanes

    def vector(self, column: Any, lanes: int) -> None:
        """Neighbouring columns, whose windows are whole from left to right."""
        p, pitch = self.p, self.p.source.frame.pitch
        top, rows = self.inside(0, self.row)
        first = self.source + top * pitch + column - p.padding[1]
        start = self.load(first, lanes) if p.kind == "max" else self.numbers.nothing(lanes)
        total = Register(lanes, start, self.numbers.dtype)
        with T.serial(0, rows) as r, T.serial(0, p.kernel[1]) as tap:
            at = first + r * p.dilation[0] * pitch + tap * p.dilation[1]
            total.set(self.numbers.combine(total.get(), self.load(at, lanes)))
        value = total.get()
        if p.kind == "avg":
            length = tirx.Cast("float32", self.length(0, self.row, rows) * p.kernel[1])
            divisor = splat(length, lanes) if lanes > 1 else length
            value = self.numbers.mean(value, rows * p.kernel[1], divisor, lanes)
        put(self.y, self.write + column, value, lanes)

    def load(self, index: Any, lanes: int) -> Any:
        return self.numbers.read(fetch(self.x, index, lanes), lanes)

    def window(self, column: Any, lanes: int) -> None:
        p, pitch, combine = self.p, self.p.source.frame.pitch, self.numbers.combine
        (top, rows), (left, columns) = self.inside(0, self.row), self.inside(1, column)
        first = self.source + top * pitch + left
        start = self.load(first, 1) if p.kind == "max" else self.numbers.nothing(1)
        single, vector = (
            Register(1, start, self.numbers.dtype),
            Register(lanes, splat(start, lanes), self.numbers.dtype) if lanes > 1 else None,
        )
        with T.serial(0, rows) as r:
            at = first + r * p.dilation[0] * pitch
            whole = columns // lanes if vector is not None else 0
            if vector is not None:
                with T.serial(0, whole) as i:
                    vector.set(combine(vector.get(), self.load(at + i * lanes, lanes)))
            with T.serial(0, columns - whole * lanes) as i:
                pixel = self.load(at + (whole * lanes + i) * p.dilation[1], 1)
                single.set(combine(single.get(), pixel))
        total = single.get() if vector is None else combine(single.get(), self.across(vector))
        if p.kind == "avg":
            size = self.length(0, self.row, rows) * self.length(1, column, columns)
            divisor = tirx.Cast("float32", size)
            total = self.numbers.mean(total, rows * columns, divisor, 1)
        put(self.y, self.write + column, total, 1)

    def across(self, register: Register) -> Any:
        """All lanes combined: halves, until one is left."""
        lanes = register.lanes
        while lanes > 1:
            lanes //= 2
            low, high = (
                shuffle([register.get()], list(range(at, at + lanes))) for at in (0, lanes)
            )
            register = Register(lanes, self.numbers.combine(low, high), self.numbers.dtype)
        return register.get()

    def start(self, axis: int, position: Any) -> Any:
        return position * self.p.stride[axis] - self.p.padding[axis]

    def inside(self, axis: int, position: Any) -> tuple[Any, Any]:
        """Where the first tap inside the image lies, and how many there are."""
        p, start = self.p, self.start(axis, position)
        extent, step = (p.source.frame.width if axis else p.source.frame.height), p.dilation[axis]
        low = (tirx.max(0, -start) + (step - 1)) // step
        high = tirx.min(p.kernel[axis] - 1, (extent - 1 - start) // step)
        return start + low * step, high - low + 1

    def length(self, axis: int, position: Any, inside: Any) -> Any:
        """What a mean divides by along an axis: as Pool2d has it."""
        p, start = self.p, self.start(axis, position)
        if not p.count_include_pad:
            return inside
        extent = p.source.frame.width if axis else p.source.frame.height
        return tirx.min(start + p.kernel[axis], extent + p.padding[axis + 2]) - start
