"""Long sums of the fallback in several partial sums: added one after the other, rounding errors
grow with the length.

Works on plain loops, after scheduling. A sum along memory becomes one partial sum in every lane of
a few vectors, which also makes vectors of it; a long sum for each of several neighbouring results
is cut into chunks. The order of additions depends on the shapes alone.
"""

import math
from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import tvm
import tvm_ffi
from tvm import tirx

from subpc.schedules.loop_nests import (
    INDEX,
    counted,
    extent_of,
    fresh,
    integer,
    loop_again,
    loop_of,
    nest,
    substituted,
    uses,
    vectors_of,
)
from subpc.schedules.reductions import Reduction, contiguous_loops, reduction_of

# Partial sums in registers: enough that each addition does not wait for the one before it.
ROW_VECTORS = 4
# Additions one after the other that lose no more than a few units in the last place; a chunk of
# chunks has as many.
CHUNK = 32
# Neighbouring results that get partial sums on the stack, in floats.
MAX_NEIGHBOURS = 1024


def with_partial_sums(stmt: Any, lanes: int) -> Any:
    """`stmt` with every long float32 sum rewritten, and every maximum along memory in vectors."""
    if isinstance(stmt, tirx.SeqStmt):
        return tirx.SeqStmt([with_partial_sums(part, lanes) for part in stmt.seq])
    if isinstance(stmt, tirx.AttrStmt):
        return tirx.AttrStmt(
            stmt.node, stmt.attr_key, stmt.value, with_partial_sums(stmt.body, lanes)
        )
    if not isinstance(stmt, tirx.For):
        return stmt
    found = reduction_of(stmt)
    if found is None:
        return loop_again(stmt, with_partial_sums(stmt.body, lanes))
    rewritten = _rows(found, lanes) or _chunks(found)
    return stmt if rewritten is None else rewritten


def _rows(found: Reduction, lanes: int) -> Any:
    """A sum along memory: a partial sum in each lane, those of a chunk by themselves, the lanes
    added in pairs at the end."""
    merged = 0 if found.spatial() else contiguous_loops(found)
    outer, inner = (
        found.loops[: len(found.loops) - merged],
        found.loops[len(found.loops) - merged :],
    )
    length = prod(extent_of(loop) for loop in inner) if merged else 0
    if length < 2 * lanes:
        return None
    vectors = ROW_VECTORS if length >= 2 * ROW_VECTORS * lanes else 1
    width = vectors * lanes
    rounds, term = length // width, _along(found.term, inner)
    sums = tirx.decl_buffer((width,), "float32", "partial")

    def added(into: Any, first: Any) -> Any:
        return vectors_of(vectors, lanes, lambda i: _combined(found, into, i, term(first + i)))

    body = [_accumulated(found, sums, vectors, lanes, integer(0), rounds, added)]
    if length % width:
        body.append(
            counted(length % width, lambda i: _combined(found, sums, i, term(rounds * width + i)))
        )
    start = tirx.const(-math.inf if found.is_max else 0.0, "float32")
    total = found.combine(
        tirx.BufferLoad(found.total, found.indices), tirx.BufferLoad(sums, [integer(0)])
    )
    return tirx.SeqStmt(
        [
            tirx.AllocBuffer(sums),
            vectors_of(vectors, lanes, lambda i: tirx.BufferStore(sums, start, [i])),
            nest(outer, tirx.SeqStmt(body) if len(body) > 1 else body[0]),
            *_pairwise(found, sums, width, lanes),
            tirx.BufferStore(found.total, total, found.indices),
        ]
    )


def _combined(found: Reduction, into: Any, at: Any, term: Any) -> Any:
    return tirx.BufferStore(into, found.combine(tirx.BufferLoad(into, [at]), term), [at])


def _accumulated(
    found: Reduction,
    into: Any,
    vectors: int,
    lanes: int,
    first: Any,
    rounds: int,
    added: Callable[[Any, Any], Any],
) -> Any:
    """`rounds` rounds of a row from round `first` on; where they are many, in chunks that have sums
    of their own."""
    width = vectors * lanes
    if found.is_max or rounds <= CHUNK:
        return counted(rounds, lambda q: added(into, (first + q) * width))

    def one(begin: Any, count: int) -> Any:
        part = tirx.decl_buffer((width,), "float32", "chunk")
        cleared = vectors_of(
            vectors, lanes, lambda i: tirx.BufferStore(part, tirx.const(0.0, "float32"), [i])
        )
        flushed = vectors_of(
            vectors, lanes, lambda i: _combined(found, into, i, tirx.BufferLoad(part, [i]))
        )
        return tirx.SeqStmt(
            [
                tirx.AllocBuffer(part),
                cleared,
                _accumulated(found, part, vectors, lanes, begin, count, added),
                flushed,
            ]
        )

    return _split(rounds, _chunk(rounds), lambda begin, count: one(first + begin, count))


def _chunk(extent: int, first: int = CHUNK) -> int:
    """The largest chunk, `first` times a power of CHUNK, of which there are more than one."""
    while first * CHUNK < extent:
        first *= CHUNK
    return first


def _split(extent: int, chunk: int, body: Callable[[Any, int], Any]) -> Any:
    """body(begin, count) for every chunk of `extent`, and for what is left."""
    whole = counted(extent // chunk, lambda c: body(c * chunk, chunk))
    rest = extent % chunk
    return (
        tirx.SeqStmt([whole, counted(1, lambda _: body(integer(extent - rest), rest))])
        if rest
        else whole
    )


def _pairwise(found: Reduction, sums: Any, width: int, lanes: int) -> Iterator[Any]:
    """The partial sums in pairs, until the first one is the total."""
    while width > 1:
        width //= 2
        vector = min(width, lanes)
        yield vectors_of(width // vector, vector, _halved(found, sums, width))


def _halved(found: Reduction, sums: Any, half: int) -> Callable[[Any], Any]:
    return lambda i: _combined(found, sums, i, tirx.BufferLoad(sums, [i + half]))


def _chunks(found: Reduction) -> Any:
    """Sums for neighbouring results, or not along memory: the outermost loop in chunks, each with
    sums of its own."""
    reduce, spatial = found.reduce(), found.spatial()
    length = prod(extent_of(loop) for loop in reduce)
    if (
        found.is_max
        or length <= 2 * CHUNK
        or prod(extent_of(loop) for loop in spatial) > MAX_NEIGHBOURS
    ):
        return None
    extent = extent_of(reduce[0])
    if extent == 1:
        inner = reduction_of(substituted(found.loops[0].body, {reduce[0].loop_var: integer(0)}))
        return _chunks(inner) if inner is not None else None
    unit = length // extent

    def one(begin: Any, count: int) -> Any:
        part = tirx.decl_buffer([extent_of(loop) for loop in spatial] or [1], "float32", "chunk")
        at = [loop.loop_var for loop in spatial] or [integer(0)]
        cleared = fresh(nest(spatial, tirx.BufferStore(part, tirx.const(0.0, "float32"), at)))
        total = tirx.BufferLoad(found.total, found.indices) + tirx.BufferLoad(part, at)
        flushed = fresh(nest(spatial, tirx.BufferStore(found.total, total, found.indices)))
        k = tirx.Var("k", INDEX)
        body = nest(
            found.loops[1:], tirx.BufferStore(part, tirx.BufferLoad(part, at) + found.term, at)
        )
        summed = fresh(loop_of(k, count, substituted(body, {reduce[0].loop_var: begin + k})))
        again = reduction_of(summed)
        deeper = _chunks(again) if again is not None else None
        return tirx.SeqStmt(
            [tirx.AllocBuffer(part), cleared, summed if deeper is None else deeper, flushed]
        )

    return _split(extent, 1 if unit >= CHUNK else _chunk(extent, CHUNK // unit), one)


def _along(term: Any, inner: list[Any]) -> Callable[[Any], Any]:
    """The term of a row as a function of the position in it, which goes to the last index: only the
    address counts from here on."""
    variables = [loop.loop_var for loop in inner]
    start = {variable: integer(0) for variable in variables}

    def at(position: Any) -> Any:
        def moved(load: Any) -> Any:
            if not any(uses(index, variable) for index in load.indices for variable in variables):
                return load
            *rest, last = [substituted(index, start) for index in load.indices]
            return tirx.BufferLoad(load.source, [*rest, last + position])

        return tvm_ffi.structural_map(term, (tvm.ir.TensorLoad, moved))

    return at
