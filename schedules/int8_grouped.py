"""Depthwise convolution of codes, and grouped convolution with few filters a group, on framed
planes.

The lanes of a register of sums are every fourth pixel of a row (tap_windows.py says which taps meet
which bytes), so pixels go from memory into the multiplication as they are. Where input and output
have the same rows (stride 1, planes of one size), a plane is one long row, the columns between rows
included: narrow planes fill whole vectors as well.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx
from tvm.tirx.script import builder as T

from subpc.schedules.dot import QUAD, dot, pair_products
from subpc.schedules.grouped_shape import GroupedShape
from subpc.schedules.isa import VectorIsa
from subpc.schedules.lane_order import columns_in_order, packed_columns
from subpc.schedules.layout import TensorLayout
from subpc.schedules.operand import Operand, integers, tensor
from subpc.schedules.quantization import CODES
from subpc.schedules.requantize import Requantize, narrowed, operands_of
from subpc.schedules.tap_windows import NO_TAP, Window, sums_of, windows
from subpc.schedules.vector import Register, fetch, load, plane_rows, put_first, splat

# Rough costs, enough to size tasks: of a vector of output pixels beside its multiplications, and of
# one of these.
VECTOR_NS, WINDOW_NS = 4.0, 0.3
# Output rows of a register tile where rows are computed by themselves.
DEFAULT_ROWS = 4


@dataclass(frozen=True, kw_only=True)
class Int8GroupedTile:
    """rows: output rows of a register tile, where a plane is no long row."""

    rows: int = DEFAULT_ROWS


@dataclass(frozen=True, kw_only=True)
class Int8Grouped(GroupedShape):
    """y[n, o] = epilogue(start[o] + sum over channels c of o's group and taps t of w[o, c, t] *
    x[n, c, t]).

    wide: weights as int16, for instruction sets that do not add four products of bytes exactly.
    residual: how it lies, of the size of y. Columns between rows may become zeros.

    Operands: x (uint8), w (`pack_weights`), start (int32: minus zero point times the sum of the
    weights), multiplier, bias, levels, [residual], [mask: a plane of y, 255 (floats: 1) where
    pixels are], y.
    """

    SCHEDULES = "grouped_i8"

    wide: bool
    residual: TensorLayout | None = None
    epilogue: Requantize
    tile: Int8GroupedTile = Int8GroupedTile()

    @property
    def family(self) -> str:
        return f"{self.kind}_i8"

    @property
    def windows(self) -> tuple[Window, ...]:
        """Of a filter's row."""
        return windows(self.kernel[1], self.stride[1], self.dilation[1])

    @property
    def words(self) -> tuple[tuple[int, ...], ...]:
        """The taps of each word of weights of a filter's row."""
        return tuple(dict.fromkeys(window.taps for window in self.windows))

    @property
    def one_row(self) -> bool:
        """Whether a plane is one long row."""
        source, out = self.source.frame, self.out.frame
        same = (source.height, source.pitch) == (out.height, out.pitch)
        return self.stride == (1, 1) and same

    @property
    def masked(self) -> bool:
        """Whether columns between rows are computed, which are no pixels."""
        return self.one_row and self.out.frame.pitch > self.out.frame.width

    def pack_weights(self, codes: np.ndarray) -> np.ndarray:
        """int8 (c_out, c_in / groups, kh, kw) -> int32 (c_out, c_in / groups, kh, words, 1 or 2):
        four codes each, or the first and the third, the second and the fourth."""
        empty = np.zeros_like(codes[..., :1])
        taps = [[tap if tap != NO_TAP else self.kernel[1] for tap in word] for word in self.words]
        words = np.concatenate([codes, empty], axis=-1)[..., np.array(taps)]
        if self.wide:
            words = words.reshape(*words.shape[:-1], 2, 2).swapaxes(-1, -2).astype("int16")
            return np.ascontiguousarray(words).view("int32")[..., 0]
        return np.ascontiguousarray(words).view("int32")

    def sizes(self) -> dict[str, Operand]:
        filters = self.out.channels
        words = filters * self.per_group * self.kernel[0] * len(self.words)
        sizes = {"x": tensor(self.source), "w": integers(words * (2 if self.wide else 1))}
        sizes |= {"start": integers(filters)} | operands_of(filters)
        if self.epilogue.residual:
            assert self.residual is not None
            sizes["residual"] = tensor(self.residual)
        if self.masked:
            sizes["mask"] = Operand(self.out.frame.plane, self.out.dtype)
        return sizes | {"y": tensor(self.out)}

    def emit(self, b: dict[str, Any], isa: VectorIsa) -> None:
        _Body(self, isa, b).tasks()


class _Body:
    """Emits the loops of one kernel; `b` are its operands by name."""

    def __init__(self, kernel: Int8Grouped, isa: VectorIsa, b: dict[str, Any]) -> None:
        self.kernel, self.buffers, self.lanes, out = kernel, b, isa.lanes, kernel.out.frame
        self.sums = sums_of(kernel.stride[1])
        self.span = self.sums * self.lanes
        self.height, self.width = (1, out.pixels) if kernel.one_row else (out.height, out.width)
        self.rows = min(kernel.tile.rows, self.height)

    def tasks(self) -> None:
        """One loop over (plane, block of rows, vector); the last of each overlap their neighbours,
        which have computed the same."""
        k, blocks, vectors = self.kernel, -(-self.height // self.rows), -(-self.width // self.span)
        multiplications = k.per_group * k.kernel[0] * len(k.windows) * (2 if k.wide else 1)
        cost = self.rows * (VECTOR_NS + WINDOW_NS * multiplications)
        steps = blocks * vectors
        with plane_rows(k.out.batch * k.out.channels, steps, cost) as (plane, step):
            row = _overlapping(step // vectors, self.rows, self.height)
            self.tile(plane, row, _overlapping(step % vectors, self.span, self.width))

    def tile(self, plane: Any, row: Any, column: Any) -> None:
        """A vector of `rows` output rows."""
        k, frame = self.kernel, self.kernel.source.frame
        channel = k.channel_of(plane)
        start = splat(self.buffers["start"][channel], self.lanes)
        sums = [
            [Register(self.lanes, start, "int32") for _ in range(self.sums)]
            for _ in range(self.rows)
        ]
        at = (row * k.stride[0] - k.padding[0]) * frame.pitch + (
            column * k.stride[1] - k.padding[1] + frame.first
        )
        first, size = k.input_plane(plane), k.kernel[0] * len(k.words) * (2 if k.wide else 1)
        if k.per_group == 1:
            self.multiply_add(sums, first * frame.plane + at, channel * size)
        else:
            with T.serial(0, k.per_group) as c:
                weight = (channel * k.per_group + c) * size
                self.multiply_add(sums, (first + c) * frame.plane + at, weight)
        for r, of_row in enumerate(sums):
            self.finish(of_row, plane, channel, (row + r) * k.out.frame.pitch + column)

    def multiply_add(self, sums: list[list[Register]], at: Any, weight: Any) -> None:
        """Add one input channel: every input row is loaded once and meets all output rows that it
        belongs to."""
        k, words = self.kernel, self.kernel.words
        for row, users in k.input_rows(self.rows).items():
            pixels = {
                start: self.pixels(at + row * k.source.frame.pitch + start)
                for start in dict.fromkeys(window.start for window in k.windows)
            }
            for r, ky in users:
                for window in k.windows:
                    word = ky * len(words) + words.index(window.taps)
                    self.add(sums[r][window.k], pixels[window.start], weight, word)

    def pixels(self, at: Any) -> list[Register]:
        """Four bytes for each lane from `at` on; for strides that four is no multiple of one pixel
        each. Where bytes are not multiplied: the first and the third as int16, the second and the
        fourth."""
        lanes, stride, x = self.lanes, self.kernel.stride[1], self.buffers["x"]
        if QUAD % stride:
            picked = tirx.Cast(f"int32x{lanes}", fetch(x, at, lanes, stride))
            quads = Register(lanes, picked, "int32")
        else:
            quads = Register(
                lanes, tirx.reinterpret(f"int32x{lanes}", load(x, at, QUAD * lanes)), "int32"
            )
        if not self.kernel.wide:
            return [quads]
        low, byte = (splat(tirx.const(value, "int32"), lanes) for value in (0x00FF00FF, 8))
        odd = (quads.get() >> byte) & low
        return [Register(lanes, part, "int32") for part in (quads.get() & low, odd)]

    def add(self, total: Register, pixels: list[Register], weight: Any, word: int) -> None:
        """Add the products of a window."""
        lanes = self.lanes
        weights = [
            splat(self.buffers["w"][weight + word * len(pixels) + part], lanes)
            for part in range(len(pixels))
        ]
        if not self.kernel.wide:
            quads = tirx.reinterpret(f"{CODES}x{QUAD * lanes}", pixels[0].get())
            total.set(dot(total.get(), quads, weights[0], lanes))
            return
        for part, codes in zip(pixels, weights, strict=True):
            a, b = (tirx.reinterpret(f"int16x{2 * lanes}", value) for value in (part.get(), codes))
            total.set(total.get() + pair_products(a, b, lanes))

    def finish(self, sums: list[Register], plane: Any, channel: Any, pixel: Any) -> None:
        """Requantize and store the pixels from flat pixel `pixel` of a plane on."""
        k, lanes, out = self.kernel, self.lanes, self.kernel.out.frame
        at, count = plane * out.plane + (out.first + pixel), min(self.span, self.width)
        mask = out.first + pixel
        if k.epilogue.codes and not k.epilogue.residual:
            values = [k.epilogue.value(s.get(), self.buffers, channel, 0, lanes) for s in sums]
            codes = packed_columns(values, k.epilogue.zero(self.buffers), lanes)
            if k.masked:
                codes = codes & load(self.buffers["mask"], mask, self.span)
            put_first(self.buffers["y"], at, Register(self.span, codes, CODES), count)
            return
        kept = (k.residual or k.out).frame
        residual = plane * kept.plane + (kept.first + pixel)
        for v, total in enumerate(columns_in_order(sums, lanes)):
            start = v * lanes
            if start < count:
                value = k.epilogue.value(total, self.buffers, channel, residual + start, lanes)
                self.store(value, at + start, mask + start, min(lanes, count - start))

    def store(self, value: Any, at: Any, mask: Any, count: int) -> None:
        """The first `count` lanes of a vector in order; mask: where it is in the mask."""
        k, lanes = self.kernel, self.lanes
        if k.epilogue.codes:
            value = narrowed(value, k.epilogue.zero(self.buffers), lanes)
        if k.masked:
            kept = load(self.buffers["mask"], mask, lanes)
            value = value & kept if k.epilogue.codes else value * kept
        put_first(self.buffers["y"], at, Register(lanes, value, k.out.dtype), count)


def _overlapping(number: Any, size: int, extent: int) -> Any:
    """Where part `number` of an extent begins; the last one reaches back to be whole."""
    if size >= extent:
        return 0
    return number * size if extent % size == 0 else tirx.min(number * size, extent - size)
