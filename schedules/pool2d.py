"""Max and average pooling of any kernel, stride, padding, dilation and rounding, from compact or
framed planes to either."""

from dataclasses import dataclass
from typing import Any

from tvm import tirx

from subpc.schedules.activation import constant
from subpc.schedules.isa import VectorIsa
from subpc.schedules.kernel import PlainKernel
from subpc.schedules.large_pool import MAX_UNROLLED_TAPS, LargeWindows
from subpc.schedules.layout import TensorLayout
from subpc.schedules.operand import Operand, tensor
from subpc.schedules.pool_numbers import PoolNumbers
from subpc.schedules.quantization import CODES, Quantization
from subpc.schedules.vector import Register, fetch, for_row, plane_rows, put, shuffle, splat

# Rough cost of one output row: enough to size tasks.
ROW_NS, TAP_NS = 5.0, 0.1


@dataclass(frozen=True, kw_only=True)
class Pool2d(PlainKernel):
    """y[n, c, Y, X] = max or mean of a window of x. Operands: x, y.

    padding: rows above, columns left, rows below, columns right; positions there never win a
    maximum and add nothing to a sum.
    count_include_pad: the mean divides by the window clipped to the padded image (PyTorch's rule),
    not to the image.
    nonnegative: x >= 0, so that zeros of the frame may stand in for padding (max only); of codes:
    none is less than what the frame holds.
    codes: what bytes stand for in a mean; result: what that is rounded to, None: it is a float.
    With scale 1 in both of them it is exact, halves are halves: right for any scale that stays.
    Rounding (ceil_mode) is in the size of `out`.
    """

    kind: str
    source: TensorLayout
    out: TensorLayout
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int] = (1, 1)
    count_include_pad: bool = True
    nonnegative: bool = False
    codes: Quantization | None = None
    result: Quantization | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("max", "avg"):
            raise ValueError(f"unknown pooling {self.kind!r}; known: max, avg")
        numbers, written = self.numbers, self.source.dtype if self.kind == "max" else "float32"
        numbers.check()
        if self.out.dtype != (CODES if numbers.result else written):
            raise ValueError(f"a result of {self.out.dtype} of {numbers}")
        if self.kind == "avg" and self.dilation != (1, 1):
            raise ValueError("average pooling with dilation")
        if any(not taps for axis in (0, 1) for taps in _valid_taps(self, axis)):
            raise ValueError(f"a pooling window lies in the padding entirely: {self}")

    @property
    def family(self) -> str:
        return f"{self.kind}_pool2d"

    @property
    def result_layout(self) -> TensorLayout:
        return self.out

    @property
    def flops(self) -> int:
        out = self.out
        return (
            out.batch
            * out.channels
            * out.frame.height
            * out.frame.width
            * self.kernel[0]
            * self.kernel[1]
        )

    @property
    def numbers(self) -> PoolNumbers:
        """What it computes with."""
        return PoolNumbers(
            kind=self.kind, source=self.source.dtype, codes=self.codes, result=self.result
        )

    def sizes(self) -> dict[str, Operand]:
        return {"x": tensor(self.source), "y": tensor(self.out)}

    def emit(self, b: dict[str, Any], isa: VectorIsa) -> None:
        out, taps = self.out.frame, self.kernel[0] * self.kernel[1]
        cost = ROW_NS + TAP_NS * taps * out.width
        with plane_rows(self.out.batch * self.out.channels, out.height, cost) as (plane, row):
            emitter = LargeWindows if taps > MAX_UNROLLED_TAPS[self.kind] else _Row
            emitter(self, [b["x"], b["y"]], plane, row).emit(self._lanes(isa))

    def _lanes(self, isa: VectorIsa) -> int:
        """Pixels further apart than two are picked one by one: no more of them than is needed."""
        return self.numbers.lanes(isa) if self.stride[1] <= 2 else isa.lanes


class _Row:
    """Emits one output row: its inner columns as vectors, the columns whose windows are clipped one
    by one."""

    def __init__(self, pool: Pool2d, buffers: list[Any], plane: Any, row: Any) -> None:
        self.p, (self.x, self.y) = pool, buffers
        self.row = row
        self.source = plane * pool.source.frame.plane + pool.source.frame.first
        self.write = (
            plane * pool.out.frame.plane + row * pool.out.frame.pitch + pool.out.frame.first
        )
        self.numbers = pool.numbers
        self.frame_pads = _frame_pads(pool)
        self.rows = [self.input_row(tap) for tap in range(pool.kernel[0])]

    def input_row(self, tap: int) -> tuple[Any, Any]:
        """(offset of the row that the tap reads, whether it is in the image: None if it always is
        or its zeros are welcome).

        A clipped tap reads a row of its window that is in the image: no harm to a maximum, and a
        sum leaves it out.
        """
        p, height = self.p, self.p.source.frame.height
        first = self.row * p.stride[0] - p.padding[0]
        row = first + tap * p.dilation[0]
        last_row = (p.out.frame.height - 1) * p.stride[0] - p.padding[0] + tap * p.dilation[0]
        if self.frame_pads or (tap * p.dilation[0] >= p.padding[0] and last_row < height):
            return self.source + row * p.source.frame.pitch, None
        step = p.dilation[0]
        lowest = first + (tirx.max(0, -first) + (step - 1)) // step * step
        highest = first + tirx.min(p.kernel[0] - 1, (height - 1 - first) // step) * step
        inside = tirx.all(row >= 0, row < height)
        return self.source + tirx.min(tirx.max(row, lowest), highest) * p.source.frame.pitch, inside

    def emit(self, lanes: int) -> None:
        inner = self.inner_columns()
        for column in [*range(inner.start), *range(inner.stop, self.p.out.frame.width)]:
            self.border(column)
        for_row(len(inner), lanes, lambda at, size: self.vector(inner.start + at, size))

    def inner_columns(self) -> range:
        """Columns whose windows are whole, or whose clipped part reads zeros that do no harm."""
        p = self.p
        clipped_mean = p.kind == "avg" and len(set(_divisors(p, 1))) > 1
        if self.frame_pads and not clipped_mean:
            return range(p.out.frame.width)
        whole = [x for x, taps in enumerate(_valid_taps(p, 1)) if len(taps) == p.kernel[1]]
        return range(whole[0], whole[-1] + 1) if whole else range(0)

    def vector(self, column: Any, lanes: int) -> None:
        """Combine down the columns first: then each tap of a row is one strided pick, not one a
        row."""
        p = self.p
        start = column * p.stride[1] - p.padding[1]
        taps = [self.pick(start + tap * p.dilation[1], lanes) for tap in range(p.kernel[1])]
        divisor = _divisors(p, 1)[self.inner_columns().start]
        value = self.finish(self.combined(taps, lanes), len(taps), divisor, lanes)
        put(self.y, self.write + column, value, lanes)

    def pick(self, column: Any, lanes: int) -> Any:
        """`lanes` combined columns, a stride apart."""
        stride = self.p.stride[1]
        if stride == 1 or lanes == 1:
            return self.down(column, lanes)
        if stride == 2:
            parts = [self.down(column, lanes), self.down(column + (lanes - 1), lanes)]
            return shuffle(parts, [*range(0, lanes, 2), *range(lanes + 1, 2 * lanes, 2)])
        return shuffle(
            [self.down(column + i * stride, 1) for i in range(lanes)], list(range(lanes))
        )

    def down(self, column: Any, lanes: int) -> Any:
        """max or sum of neighbouring input columns over the rows of the window."""
        return self.combined(
            [self.element(row, inside, column, lanes) for row, inside in self.rows], lanes
        )

    def combined(self, values: list[Any], lanes: int) -> Any:
        """max or sum of values, from a register: as one expression, 25 nested maxima would take
        LLVM minutes."""
        total = Register(lanes, values[0], self.numbers.dtype)
        for value in values[1:]:
            total.set(self.numbers.combine(total.get(), value))
        return total.get()

    def element(self, row: Any, inside: Any, column: Any, lanes: int) -> Any:
        value = self.numbers.read(fetch(self.x, row + column, lanes), lanes)
        if inside is None or self.p.kind == "max":
            return value
        return tirx.Select(inside, value, self.numbers.outside(lanes))

    def border(self, column: int) -> None:
        p = self.p
        start = column * p.stride[1] - p.padding[1]
        taps = [self.down(start + tap * p.dilation[1], 1) for tap in _valid_taps(p, 1)[column]]
        value = self.finish(self.combined(taps, 1), len(taps), _divisors(p, 1)[column], 1)
        put(self.y, self.write + column, value, 1)

    def finish(self, value: Any, taps: int, columns: int, lanes: int) -> Any:
        """Divide a sum of `taps` columns by its window's size; `columns` is its width."""
        if self.p.kind == "max":
            return value
        heights, count = _divisors(self.p, 0), taps * self.p.kernel[0]
        if len(set(heights)) == 1:
            divisor = constant(float(heights[0] * columns), lanes)
            return self.numbers.mean(value, count, divisor, lanes)
        p, extent = self.p, self.p.source.frame.height
        first = self.row * p.stride[0] - p.padding[0]
        low, high = (-p.padding[0], extent + p.padding[2]) if p.count_include_pad else (0, extent)
        height = tirx.min(first + p.kernel[0], high) - tirx.max(first, low)
        size = tirx.Cast("float32", height * columns)
        divisor = splat(size, lanes) if lanes > 1 else size
        return self.numbers.mean(value, count, divisor, lanes)


def _extent(pool: Pool2d, axis: int) -> tuple[int, int]:
    """(input size, output size) along an axis: 0 rows, 1 columns."""
    source, out = pool.source.frame, pool.out.frame
    return (source.width, out.width) if axis else (source.height, out.height)


def _valid_taps(pool: Pool2d, axis: int) -> list[list[int]]:
    """For every output position along an axis, the taps that read the image."""
    size, count = _extent(pool, axis)
    starts = [i * pool.stride[axis] - pool.padding[axis] for i in range(count)]
    return [
        [t for t in range(pool.kernel[axis]) if 0 <= s + t * pool.dilation[axis] < size]
        for s in starts
    ]


def _divisors(pool: Pool2d, axis: int) -> list[int]:
    """For every output position along an axis, the length that a mean divides by."""
    size, _ = _extent(pool, axis)
    taps = _valid_taps(pool, axis)
    if not pool.count_include_pad:
        return [len(t) for t in taps]
    before, after, kernel, stride = (
        pool.padding[axis],
        pool.padding[axis + 2],
        pool.kernel[axis],
        pool.stride[axis],
    )
    return [
        min(i * stride - before + kernel, size + after) - (i * stride - before)
        for i in range(len(taps))
    ]


def _frame_pads(pool: Pool2d) -> bool:
    """Whether all windows stay inside the source's frame and its zeros may be read as padding.

    A frame of codes holds zero points only where a convolution reads them: a mean cannot count on
    that.
    """
    if pool.kind == "max" and not pool.nonnegative:
        return False
    if pool.kind == "avg" and pool.codes is not None and pool.codes.zero_point:
        return False
    for axis in (0, 1):
        size, count = _extent(pool, axis)
        end = (
            (count - 1) * pool.stride[axis]
            - pool.padding[axis]
            + (pool.kernel[axis] - 1) * pool.dilation[axis]
        )
        if max(pool.padding[axis], end - (size - 1)) > pool.source.frame.halo:
            return False
    return True
