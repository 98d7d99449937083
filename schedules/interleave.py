"""Several small planes become one large plane: pixel shuffle, the phases of a transposed
convolution, nearest upsampling."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx

from subpc.schedules.activation import NONE, Activation, activate
from subpc.schedules.codes import rounded
from subpc.schedules.epilogue import Epilogue
from subpc.schedules.isa import VectorIsa
from subpc.schedules.kernel import KernelBase
from subpc.schedules.layout import TensorLayout
from subpc.schedules.operand import Operand, floats, tensor
from subpc.schedules.quantization import CODES, Quantization
from subpc.schedules.vector import Register, fetch, for_row, plane_rows, put, shuffle, splat

# Rough cost of one output row: enough to size tasks.
ROW_NS, FLOAT_NS = 8.0, 0.1
# The place of a phase that no plane of the source holds.
NOWHERE = -1


@dataclass(frozen=True, kw_only=True)
class Interleave(KernelBase):
    """Spread the pixels of the source's planes over larger ones: `factors` (rows, columns) output
    pixels for each source pixel.

    Output pixel (Y, X) is of phase (r, q) = (Y + top, X + left) modulo the factors, `crop` being
    (top, left), and is read from source pixel (Y + top, X + left) // factors of plane starts[p] + c
    * steps[p], where p = r * factors[1] + q and c is the output's channel. A phase that starts
    NOWHERE is activation(fill[c]) everywhere. activation: what was computed already in the source's
    planes, and what a fill still needs; quantization: the codes that a fill becomes, where planes
    hold codes. Operands: x, [fill (C,), float32], y.
    """

    source: TensorLayout
    out: TensorLayout
    factors: tuple[int, int]
    crop: tuple[int, int]
    starts: tuple[int, ...]
    steps: tuple[int, ...]
    activation: Activation = NONE
    quantization: Quantization | None = None

    def __post_init__(self) -> None:
        if self.filled and (self.quantization is None) != (self.out.dtype != CODES):
            raise ValueError(f"a fill of {self.out.dtype} with {self.quantization}")
        if not len(self.starts) == len(self.steps) == self.factors[0] * self.factors[1]:
            raise ValueError(f"{len(self.starts)} starts for factors {self.factors}")
        source, out = self.source.frame, self.out.frame
        for extent, small, factor, cut in zip(
            (out.height, out.width),
            (source.height, source.width),
            self.factors,
            self.crop,
            strict=True,
        ):
            if cut + extent > small * factor:
                raise ValueError(f"{extent} pixels from {cut} on out of {small} by {factor}")

    @property
    def family(self) -> str:
        return "interleave"

    @property
    def filled(self) -> bool:
        """Whether some pixels come from no plane."""
        return NOWHERE in self.starts

    @property
    def flops(self) -> int:
        return 0

    @property
    def result_layout(self) -> TensorLayout:
        return self.out

    @property
    def epilogue(self) -> Epilogue:
        return Epilogue(activation=self.activation)

    def sizes(self) -> dict[str, Operand]:
        fill = {"fill": floats(self.out.channels)} if self.filled else {}
        return {"x": tensor(self.source)} | fill | {"y": tensor(self.out)}

    def emit(self, b: dict[str, Any], isa: VectorIsa) -> None:
        out = self.out
        cost = ROW_NS + FLOAT_NS * out.frame.width
        with plane_rows(out.batch * out.channels, out.frame.height, cost) as (plane, row):
            _Row(self, list(b.values()), plane, row).emit(isa.lanes_of(out.dtype))


class _Row:
    """Emits one output row: whole groups of columns as vectors, what the crop leaves of the others
    one by one."""

    def __init__(self, kernel: Interleave, buffers: list[Any], plane: Any, row: Any) -> None:
        self.kernel, self.x, self.y = kernel, buffers[0], buffers[-1]
        source, out, (rows, self.columns) = kernel.source, kernel.out, kernel.factors
        image, self.channel = (
            (0, plane) if out.batch == 1 else (plane // out.channels, plane % out.channels)
        )
        at = row + kernel.crop[0]
        self.phase = at % rows
        self.line = image * source.image + at // rows * source.frame.pitch + source.frame.first
        self.write = plane * out.frame.plane + row * out.frame.pitch + out.frame.first
        self.fill = self.filling(buffers[1][self.channel]) if kernel.filled else None

    def filling(self, value: Any) -> Any:
        """What stands in the place of a pixel that no plane has."""
        value = activate(self.kernel.activation, value, 1)
        quantization = self.kernel.quantization
        return value if quantization is None else rounded(value, quantization, 1)

    def emit(self, lanes: int) -> None:
        width, left, columns = self.kernel.out.frame.width, self.kernel.crop[1], self.columns
        first, end = -(-left // columns), (width + left) // columns
        begin = first * columns - left
        alone = (
            [*range(begin), *range(end * columns - left, width)] if first < end else range(width)
        )
        for x in alone:
            pixel, column = divmod(x + left, columns)
            put(self.y, self.write + x, self.value(column, pixel, 1), 1)
        for_row(max(0, end - first), lanes, lambda at, size: self.group(begin, first, at, size))

    def group(self, begin: int, first: int, at: Any, lanes: int) -> None:
        """`lanes` pixels of each column's plane, next to each other: as many vectors as there are
        columns."""
        write = self.write + begin + at * self.columns
        parts = [
            Register(lanes, self.value(column, first + at, lanes), self.kernel.out.dtype)
            for column in range(self.columns)
        ]
        for number in range(self.columns):
            wanted = [divmod(number * lanes + lane, self.columns) for lane in range(lanes)]
            if self.columns == 1 or lanes == 1:
                value = parts[number].get()
            else:
                value = shuffle(
                    [part.get() for part in parts],
                    [column * lanes + pixel for pixel, column in wanted],
                )
            put(self.y, write + number * lanes, value, lanes)

    def value(self, column: int, pixel: Any, lanes: int) -> Any:
        """Neighbouring pixels of the plane that holds a column's phase in this row."""
        starts, steps = (
            self.kernel.starts[column :: self.columns],
            self.kernel.steps[column :: self.columns],
        )
        missing = [int(start == NOWHERE) for start in starts]
        fill = None if self.fill is None else splat(self.fill, lanes) if lanes > 1 else self.fill
        if all(missing):
            return fill
        start = _by_phase([max(start, 0) for start in starts], self.phase)
        plane = start + self.channel * _by_phase(steps, self.phase)
        value = fetch(self.x, plane * self.kernel.source.frame.plane + self.line + pixel, lanes)
        return (
            tirx.Select(_by_phase(missing, self.phase) == 1, fill, value) if any(missing) else value
        )


def _by_phase(values: Sequence[int], phase: Any) -> Any:
    """values[phase], as arithmetic where they are evenly spaced."""
    step = values[1] - values[0] if len(values) > 1 else 0
    if all(value == values[0] + i * step for i, value in enumerate(values)):
        return values[0] + phase * step if step else values[0]
    chosen: Any = values[-1]
    for index in reversed(range(len(values) - 1)):
        chosen = tirx.Select(phase == index, values[index], chosen)
    return chosen
