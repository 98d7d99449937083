"""The sums of a register tile of codes, with the instructions that an instruction set has for them.

vpdpbusd adds four products of neighbouring bytes to each int32 lane. CPUs without it have two
others. vpmaddubsw adds two products of bytes in 16 bits, and saturates: a sum of its results is
right if the weights behind it are small enough (`fitting_steps`), and is widened to 32 bits by
vpmaddwd with ones and vpaddd. vpmaddwd multiplies words and adds two products in 32 bits: right for
all codes. Instructions for four products in each lane:

    1            vpdpbusd
    2 + 1 / n    vpmaddubsw, n results added before they are widened (registers suffice for few)
    2 + 4 / n    the same with a tile of 16-bit sums; the 32-bit sums wait in the stack's memory
    4            vpmaddwd

Where vpdpbusd reaches 435 Gop/s in a layer of 3 x 3 taps, these reach 224 (n = 1), 272 (2), 303
(4), 312 (36) and 174 (words) at 512 bits, and hardly less at 256 on a core that halves 512 bits.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx
from tvm.tirx.script import builder as T

from subpc.schedules.block_conv import PREFETCH_WEIGHTS
from subpc.schedules.dot import QUAD, dot, pair_products
from subpc.schedules.isa import VectorIsa
from subpc.schedules.quantization import CODES, LARGEST_CODE
from subpc.schedules.vector import Register, prefetch, splat

# Weights of one sign that add up to this may meet the largest pixels in a 16-bit sum.
LARGEST_NARROW = (2**15 - 1) // LARGEST_CODE
# Numbers of steps that kernels are made for: each other one would be another kernel for the same
# shapes. Multiples of nine are filters of 3 x 3 taps.
STEPS = (0, 1, 2, 3, 4, 18, 36)
# From so many steps on 16-bit sums are the tile; below, registers hold the pixels of so many.
MANY = 18


def fitting_steps(codes: np.ndarray) -> int:
    """How many steps, of STEPS, one after the other may be added in 16 bits, whatever the pixels.

    A step is one tap of a quad of channels; its four codes meet in two sums. No sum leaves 16 bits
    if neither its positive nor its negative weights, times the largest pixel, do: so do the sums on
    the way there. 0: some two codes are too large already.

    Args:
        codes: int8 (filters, channels, taps), channels as the kernel lists them, a multiple of four
            of them.
    """
    filters, _, taps = codes.shape
    pairs = codes.reshape(filters, -1, 2, 2, taps).astype("int32")
    fitting = STEPS[-1]
    for sign in (1, -1):
        # (filters, steps in the order of the kernel, the two sums)
        sums = np.maximum(sign * pairs, 0).sum(axis=3).transpose(0, 1, 3, 2)
        sums = np.cumsum(sums.reshape(filters, -1, 2), axis=1, dtype="int32")
        sums = np.pad(sums, ((0, 0), (1, 0), (0, 0)))
        fitting = min(fitting, _longest(sums))
    return fitting


def _longest(sums: np.ndarray) -> int:
    """The most steps that always fit; sums: running sums (filters, steps + 1, 2)."""
    longest = 0
    for steps in STEPS[1:]:
        length = min(steps, sums.shape[1] - 1)
        if (sums[:, length:] - sums[:, : sums.shape[1] - length]).max(initial=0) > LARGEST_NARROW:
            break
        longest = steps
    return longest


def instructions(narrow: int | None) -> float:
    """For four products in each lane, as in the table above."""
    if narrow is None:
        return 1.0
    if narrow == 0:
        return 4.0
    return 2.0 + (1.0 if narrow < MANY else 4.0) / narrow


def registers_wanted(rows: int, vectors: int, narrow: int | None) -> int:
    """Vector registers behind a tile, so that nothing is spilled (seen in the assembly): sums,
    pixels and weights that are needed together, results on their way."""
    sums = rows * vectors
    if narrow is None:
        return sums + vectors + 2
    if narrow == 0:
        return sums + 2 * vectors + 3
    together = narrow if narrow < MANY else 1
    weights = together if together < 3 else 0  # of more, none waits for long
    return sums + together * vectors + weights + 2


@dataclass(frozen=True, kw_only=True)
class TileSums:
    """Adds to the int32 registers sums[row][vector] what a tile's quads and taps contribute.

    quads: how many; an int or an expression. taps: of each. pixels: (quad, tap, vector) -> a vector
    of quads. weights: (quad, tap, row) -> where in `w` the row's codes for this step are, in steps
    from the beginning. narrow: as in QuadConv. streamed: whether
    weights come from beyond the second cache, and are asked for ahead; those of a sparse layer are
    few, and asking costs more.
    """

    isa: VectorIsa
    sums: Sequence[Sequence[Register]]
    quads: Any
    taps: int
    pixels: Callable[[Any, int, int], Any]
    w: Any
    weights: Callable[[Any, int, int], Any]
    narrow: int | None
    streamed: bool

    def emit(self) -> None:
        """The loops."""
        if self.narrow is None:
            self._each_quad(self._add_quads)
        elif self.narrow == 0:
            self._each_quad(self._add_words)
        elif self.narrow < MANY:
            self._add_few(self.narrow)
        elif self.narrow < self.taps:
            self._add_part_by_part(self.narrow)
        else:
            self._add_many(self.narrow // self.taps)

    def _each_quad(self, body: Callable[[Any, int], None]) -> None:
        with T.serial(0, self.quads) as quad:
            if self.streamed:
                self._prefetch(quad)
            for tap in range(self.taps):
                body(quad, tap)

    def _prefetch(self, quad: Any) -> None:
        ahead = self.weights(quad, 0, 0) + PREFETCH_WEIGHTS
        prefetch(self.w, ahead, self.taps * len(self.sums), write=False)

    def _row(self, quad: Any, tap: int) -> list[Register]:
        """What the lanes of a step are: pixels."""
        size = QUAD * self.isa.lanes
        return [Register(size, self.pixels(quad, tap, v), CODES) for v in range(len(self.sums[0]))]

    def _of_row(self, quad: Any, tap: int, row: int) -> Any:
        """What a row of the tile meets in every lane, as int32 words: four codes of its filter."""
        return splat(self.w[self.weights(quad, tap, row)], self.isa.lanes)

    def _pixels_and_codes(self, lane: Any, of_row: Any) -> tuple[Any, Any]:
        """Pixels as bytes, and codes as words."""
        return lane, of_row

    def _add_quads(self, quad: Any, tap: int) -> None:
        row = self._row(quad, tap)
        for r, totals in enumerate(self.sums):
            of_row = self._of_row(quad, tap, r)
            for lane, total in zip(row, totals, strict=True):
                pair = self._pixels_and_codes(lane.get(), of_row)
                total.set(dot(total.get(), *pair, self.isa.lanes))

    def _add_words(self, quad: Any, tap: int) -> None:
        """Pixels of even and of odd places as words; w has the codes of both, one after the
        other."""
        row = [self._words(pixels) for pixels in self._row(quad, tap)]
        for r, totals in enumerate(self.sums):
            at = 2 * self.weights(quad, tap, r)
            codes = [
                Register(self.isa.lanes, splat(self.w[at + half], self.isa.lanes), "int32")
                for half in range(2)
            ]
            for words, total in zip(row, totals, strict=True):
                even, odd = (self._pairs(words[half].get(), codes[half].get()) for half in range(2))
                total.set(self._less(total.get(), even + odd, "int32"))

    def _words(self, pixels: Register) -> tuple[Register, Register]:
        lanes = 2 * self.isa.lanes
        words = tirx.reinterpret(f"uint16x{lanes}", pixels.get())
        mask, byte = (splat(tirx.const(value, "uint16"), lanes) for value in (0xFF, 8))
        return (
            Register(lanes, words & mask, "uint16"),
            Register(lanes, tirx.shift_right(words, byte), "uint16"),
        )

    def _add_few(self, narrow: int) -> None:
        """Some steps together: their 16-bit sum is a temporary value."""
        together = max(1, narrow // self.taps)
        whole = self.quads // together
        with T.serial(0, whole) as turn:
            self._add_steps(turn * together, together, narrow)
        if not isinstance(self.quads, int) or self.quads % together:
            with T.serial(0, self.quads % together) as quad:
                self._add_steps(whole * together + quad, 1, narrow)

    def _add_steps(self, first: Any, quads: int, narrow: int) -> None:
        steps = [(first + q, tap) for q in range(quads) for tap in range(self.taps)]
        for part in in_parts(steps, narrow):
            row = [self._row(*step) for step in part]
            for r, totals in enumerate(self.sums):
                of_row = [
                    Register(self.isa.lanes, self._of_row(quad, tap, r), "int32")
                    for quad, tap in part
                ]
                for v, total in enumerate(totals):
                    products = [
                        self._multiply(lanes[v].get(), own.get())
                        for lanes, own in zip(row, of_row, strict=True)
                    ]
                    products = self._widened(sum(products[1:], products[0]), -1)
                    total.set(self._less(total.get(), products, "int32"))

    def _add_many(self, together: int) -> None:
        """A tile of 16-bit sums, widened after so many quads."""
        with T.serial(0, (self.quads + together - 1) // together) as turn:
            narrow = self._narrow_tile()
            left = self.quads - turn * together
            with T.serial(0, tirx.min(left, together)) as quad:
                for tap in range(self.taps):
                    self._add_narrow(narrow, turn * together + quad, tap)
            self._widen(narrow)

    def _add_part_by_part(self, narrow: int) -> None:
        """The same where a quad has more taps than fit."""
        with T.serial(0, self.quads) as quad:
            for part in in_parts(range(self.taps), narrow):
                tile = self._narrow_tile()
                for tap in part:
                    self._add_narrow(tile, quad, tap)
                self._widen(tile)

    def _narrow_tile(self) -> list[list[Register]]:
        lanes = 2 * self.isa.lanes
        zero = splat(tirx.const(0, "int16"), lanes)
        return [[Register(lanes, zero, "int16") for _ in totals] for totals in self.sums]

    def _add_narrow(self, tile: list[list[Register]], quad: Any, tap: int) -> None:
        row = self._row(quad, tap)
        for r, totals in enumerate(tile):
            of_row = self._of_row(quad, tap, r)
            for lane, total in zip(row, totals, strict=True):
                products = self._multiply(lane.get(), of_row)
                total.set(self._less(total.get(), products, "int16"))

    def _widen(self, tile: list[list[Register]]) -> None:
        for totals, narrow in zip(self.sums, tile, strict=True):
            for total, part in zip(totals, narrow, strict=True):
                total.set(self._less(total.get(), self._widened(part.get(), 1), "int32"))

    def _multiply(self, lane: Any, of_row: Any) -> Any:
        """Sums of two products of unsigned and signed bytes in each int16 lane, saturating."""
        lanes = self.isa.lanes
        name = "avx512.pmaddubs.w.512" if lanes == 16 else "avx2.pmadd.ub.sw"
        pixels, codes = self._pixels_and_codes(lane, of_row)
        return tirx.call_llvm_pure_intrin(
            f"int16x{2 * lanes}", f"llvm.x86.{name}", pixels, self._bytes(codes)
        )

    def _less(self, total: Any, products: Any, dtype: str) -> Any:
        """total - products, as an operation of its own.

        Sums are subtracted from. A chain of additions LLVM puts in another order, so that products
        of several taps wait for each other: there are no registers for them, and a tile of 4 x 4
        spills 126 of them in a filter of 3 x 3 taps. What the vector predication intrinsics
        subtract it leaves where it is.
        """
        lanes = self.isa.lanes * (2 if dtype == "int16" else 1)
        always = splat(tirx.const(True, "bool"), lanes)
        return tirx.call_llvm_pure_intrin(
            f"{dtype}x{lanes}", "llvm.vp.sub", total, products, always, tirx.const(lanes, "int32")
        )

    def _widened(self, narrow: Any, factor: int) -> Any:
        """Sums of two neighbours in each int32 lane, by 1 or by -1."""
        return self._pairs(narrow, splat(tirx.const(factor, "int16"), 2 * self.isa.lanes))

    def _pairs(self, first: Any, second: Any) -> Any:
        """Sums of two products of words in each int32 lane."""
        lanes = self.isa.lanes
        words = f"int16x{2 * lanes}"
        first, second = (tirx.reinterpret(words, value) for value in (first, second))
        return pair_products(first, second, lanes)

    def _bytes(self, words: Any) -> Any:
        return tirx.reinterpret(f"{CODES}x{QUAD * self.isa.lanes}", words)


def in_parts(steps: Sequence[Any], largest: int) -> Iterator[Sequence[Any]]:
    """Sequences of nearly equal length, none longer than `largest`."""
    count = -(-len(steps) // largest)
    for part in range(count):
        yield steps[part * len(steps) // count : (part + 1) * len(steps) // count]
