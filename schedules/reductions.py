"""Sums and maxima recognised in plain loops: what is added up, in which loops, and how those walk
through memory."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from typing import Any

import tvm
import tvm_ffi
from tvm import sym, tirx

from subpc.schedules.loop_nests import extent_of, integer, is_plain, uses

_KINDS = (tirx.ForKind.SERIAL, tirx.ForKind.VECTORIZED, tirx.ForKind.UNROLLED)


@dataclass(frozen=True, kw_only=True)
class Reduction:
    """for reduce..., for spatial...: total[indices] = combine(total[indices], term), the loops in
    any order, a reduction outermost."""

    loops: list[Any]
    total: Any
    indices: list[Any]
    term: Any
    combine: Callable[[Any, Any], Any]

    def reduce(self) -> list[Any]:
        """Loops over the terms of one result."""
        return [loop for loop in self.loops if not self._chooses(loop)]

    def spatial(self) -> list[Any]:
        """Loops over results."""
        return [loop for loop in self.loops if self._chooses(loop)]

    def _chooses(self, loop: Any) -> bool:
        return any(uses(index, loop.loop_var) for index in self.indices)

    @property
    def is_max(self) -> bool:
        return self.combine is tirx.max


def reduction_of(stmt: Any) -> Reduction | None:
    """The float32 sum or maximum that loops compute, None if they compute anything else."""
    loops = []
    while isinstance(stmt, tirx.For) and stmt.kind in _KINDS:
        loops.append(stmt)
        stmt = stmt.body
    if (
        not isinstance(stmt, tirx.BufferStore)
        or str(stmt.buffer.ty.dtype) != "float32"
        or not all(is_plain(loop) for loop in loops)
    ):
        return None
    if not isinstance(stmt.value, tirx.Add | tirx.Max):
        return None
    for total, term in ((stmt.value.a, stmt.value.b), (stmt.value.b, stmt.value.a)):
        if (
            isinstance(total, tvm.ir.TensorLoad)
            and total.source.same_as(stmt.buffer)
            and _equal(total.indices, stmt.indices)
        ):
            combine = tirx.max if isinstance(stmt.value, tirx.Max) else lambda a, b: a + b
            at = list(stmt.indices)
            found = Reduction(
                loops=loops, total=stmt.buffer, indices=at, term=term, combine=combine
            )
            reduce = found.reduce()
            serial = all(loop.kind == tirx.ForKind.SERIAL for loop in reduce)
            reads_itself = any(load.source.same_as(stmt.buffer) for load in _loads(term))
            fits = reduce and serial and reduce[0].same_as(loops[0]) and not reads_itself
            return found if fits else None
    return None


def contiguous_loops(found: Reduction) -> int:
    """How many of the innermost loops together walk through memory one by one, in every tensor that
    they walk through at all."""
    loads, best = list(_loads(found.term)), 0
    steps = [_steps(load, [loop.loop_var for loop in found.loops]) for load in loads]
    if (
        not loads
        or any(step is None for step in steps)
        or _outside_of_loads(found.term, [loop.loop_var for loop in found.loops])
    ):
        return 0
    for count in range(1, len(found.loops) + 1):
        inner = found.loops[-count:]
        strides = [prod(extent_of(loop) for loop in inner[i + 1 :]) for i in range(count)]
        walked = [step[-count:] for step in steps if step is not None and any(step[-count:])]
        if walked and all(
            step[i] == strides[i] or extent_of(inner[i]) == 1
            for step in walked
            for i in range(count)
        ):
            best = count
    return best


def _steps(load: Any, variables: list[Any]) -> list[int] | None:
    """How far each variable moves the load through memory, None if not by the same step
    everywhere."""
    with suppress(Exception):
        found = sym.detect_linear_equation(sym.Analyzer().simplify(_flat(load)), variables)
        return [int(step) for step in found[:-1]] if len(found) == len(variables) + 1 else None
    return None


def _flat(load: Any) -> Any:
    index: Any = integer(0)
    for extent, at in zip(load.source.ty.shape, load.indices, strict=True):
        index = index * int(extent) + at
    return index


def _outside_of_loads(term: Any, variables: list[Any]) -> bool:
    """Whether the term depends on a loop other than by what it loads, as it does where it asks for
    a border."""
    blind = tvm_ffi.structural_map(
        term, (tvm.ir.TensorLoad, lambda load: tirx.const(0.0, str(load.ty.dtype)))
    )
    return any(uses(blind, variable) for variable in variables)


def _loads(term: Any) -> Iterator[Any]:
    found: list[Any] = []
    tvm_ffi.structural_walk(term, (tvm.ir.TensorLoad, found.append))
    return iter(found)


def _equal(left: Sequence[Any], right: Sequence[Any]) -> bool:
    return len(left) == len(right) and all(
        tvm_ffi.structural_equal(a, b) for a, b in zip(left, right, strict=True)
    )
