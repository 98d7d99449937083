"""Schedules for the operators without a kernel of ours, by rules that hold for any of them.

They have to be right for every operator and decent for most: producers that are read once are
inlined, the outer loops run in parallel, the innermost loop over neighbouring outputs becomes
vectors, and sums keep an order that does not depend on the threads.
"""

from math import prod
from typing import Any

import tvm
import tvm_ffi
from tvm import s_tir, tirx

from subpc.schedules.loop_nests import uses

# Loops with less work than this (in elementary operations) run on one thread: starting more costs
# as much.
MIN_PARALLEL_WORK = 8192
# Outputs that one reduction tile keeps in registers, in vectors.
TILE_VECTORS = 4
# Vectors of an elementwise chunk: long enough to amortise its loop, short enough to share out.
CHUNK_VECTORS = 64


def extents(buffer: Any) -> list[int]:
    """The static shape of a buffer."""
    return [int(extent) for extent in buffer.ty.shape]


def iterations(func: tirx.PrimFunc) -> int:
    """Iterations of all loop nests of a function."""
    schedule = s_tir.Schedule(tvm.IRModule({"main": func}))
    return sum(_volume(schedule, block) for block in _blocks(schedule))


def scheduled(func: tirx.PrimFunc, lanes: int) -> tirx.PrimFunc:
    """`func` with inlined producers, parallel outer loops and vectors; a block that resists stays
    as it was."""
    schedule = s_tir.Schedule(tvm.IRModule({"main": func}))
    for block in _blocks(schedule):
        _inline(schedule, block)
    for block in _blocks(schedule):
        attempt = schedule.copy()
        try:
            _schedule_block(attempt, block, lanes)
        except (s_tir.ScheduleError, ValueError, RuntimeError):
            continue
        schedule = attempt
    return schedule.mod["main"]


def _blocks(schedule: s_tir.Schedule) -> list[Any]:
    return list(schedule.get_child_blocks(schedule.get_sblock("root")))


def _volume(schedule: s_tir.Schedule, block: Any) -> int:
    return prod(_extent(schedule, loop) for loop in schedule.get_loops(block))


def _extent(schedule: s_tir.Schedule, loop: Any) -> int:
    return int(schedule.get(loop).extent)


def _is_spatial(schedule: s_tir.Schedule, block: Any) -> bool:
    return all(v.iter_type == tirx.IterVar.DataPar for v in schedule.get(block).iter_vars)


def _inline(schedule: s_tir.Schedule, block: Any) -> None:
    """Compute a producer where it is used, unless that repeats work: in several consumers, or in a
    reduction that rereads it."""
    consumers = schedule.get_consumers(block)
    if not consumers or not _is_spatial(schedule, block):
        return
    work = _volume(schedule, block)
    costly = _has_calls(schedule.get(block).body)
    if costly and (len(consumers) > 1 or any(_volume(schedule, c) > work for c in consumers)):
        return
    if any(_volume(schedule, c) > work and not _is_spatial(schedule, c) for c in consumers):
        return
    try:
        schedule.compute_inline(block)
    except s_tir.ScheduleError:
        return


def _has_calls(body: Any) -> bool:
    found = []
    tvm_ffi.structural_walk(body, (tvm.ir.Call, lambda call: found.append(call)))
    return bool(found)


def _schedule_block(schedule: s_tir.Schedule, block: Any, lanes: int) -> None:
    """Parallel outer loops and a vector inside; blocks that are neither maps nor plain reductions
    are left alone."""
    loops, kinds = schedule.get_loops(block), [v.iter_type for v in schedule.get(block).iter_vars]
    if len(loops) != len(kinds) or not set(kinds) <= {
        tirx.IterVar.DataPar,
        tirx.IterVar.CommReduce,
    }:
        return
    spatial = [
        loop for loop, kind in zip(loops, kinds, strict=True) if kind == tirx.IterVar.DataPar
    ]
    reduce = [
        loop for loop, kind in zip(loops, kinds, strict=True) if kind == tirx.IterVar.CommReduce
    ]
    if not spatial:
        if reduce and len(schedule.get(block).writes) == 1:
            schedule.decompose_reduction(block, reduce[0])
        return
    work = _volume(schedule, block)
    inner = _innermost_is_a_row(schedule.get(block), tirx.IterVar.DataPar)
    if reduce:
        _schedule_reduction(schedule, block, spatial, reduce, lanes if inner else 0, work)
    else:
        _parallel(schedule, _schedule_map(schedule, block, spatial, lanes if inner else 0), work)


def _parallel(schedule: s_tir.Schedule, loops: list[Any], work: int) -> Any:
    """Fuse the loops and run them in parallel if that pays; the fused loop, or None."""
    if not loops:
        return None
    fused = schedule.fuse(*loops)
    if work >= MIN_PARALLEL_WORK:
        schedule.parallel(fused)
    return fused


def _schedule_map(
    schedule: s_tir.Schedule, block: Any, spatial: list[Any], lanes: int
) -> list[Any]:
    """Vectors along the last axis, or along all of them where every operand has the same index;
    returns the outer loops."""
    if lanes and _same_index_everywhere(schedule.get(block)):
        size = _tile(_volume(schedule, block), lanes, CHUNK_VECTORS)
        if size:
            outer, inner = schedule.split(schedule.fuse(*spatial), [None, size])
            _vectorize(schedule, inner, lanes)
            return [outer]
    *outer_loops, inner = spatial
    if lanes and _extent(schedule, inner) % lanes == 0:
        _vectorize(schedule, inner, lanes)
    return outer_loops


def _schedule_reduction(
    schedule: s_tir.Schedule,
    block: Any,
    spatial: list[Any],
    reduce: list[Any],
    lanes: int,
    work: int,
) -> None:
    """Neighbouring outputs inside, the reduction around them; sums that fill whole vectors stay in
    registers."""
    *outer, inner = spatial
    extent = _extent(schedule, inner)
    if lanes == 0 or extent < lanes:
        _parallel(schedule, spatial, work)
        if len(schedule.get(block).writes) == 1:
            schedule.decompose_reduction(block, reduce[0])
        return
    size = _tile(extent, lanes, TILE_VECTORS)
    tail = None
    if size:
        tail = schedule.cache_write(block, 0, "global")
        tile, inner = schedule.split(inner, [None, size])
        outer = [*outer, tile]
    schedule.reorder(*outer, *reduce, inner)
    fused = _parallel(schedule, outer, work)
    if tail is not None:
        schedule.reverse_compute_at(tail, fused)
        _vectorize(schedule, schedule.get_loops(tail)[-1], lanes)
    if size:
        _vectorize(schedule, inner, lanes)
    schedule.decompose_reduction(block, reduce[0])


def _tile(extent: int, lanes: int, most: int) -> int:
    """The largest divisor of `extent` that is a multiple of `lanes`, at most `most` vectors; 0 if
    there is none."""
    return next((v * lanes for v in range(most, 0, -1) if extent % (v * lanes) == 0), 0)


def _vectorize(schedule: s_tir.Schedule, loop: Any, lanes: int) -> None:
    """Run a loop of whole vectors as such; a few of them are unrolled."""
    count = _extent(schedule, loop) // lanes
    outer, inner = schedule.split(loop, [None, lanes])
    schedule.vectorize(inner)
    if count <= TILE_VECTORS:
        schedule.unroll(outer)


def _innermost_is_a_row(node: Any, kind: Any) -> bool:
    """Whether neighbours along the last axis of a kind are neighbours in every operand that it
    indexes."""
    axes = [v.var for v in node.iter_vars if v.iter_type == kind]
    regions = [[r.min for r in access.region] for access in (*node.reads, *node.writes)]
    return bool(axes) and not any(
        uses(index, axes[-1]) for region in regions for index in region[:-1]
    )


def _same_index_everywhere(node: Any) -> bool:
    """Whether all operands have the shape of the output and are read where it is written."""
    variables = [v.var for v in node.iter_vars]
    regions = [[r.min for r in access.region] for access in (*node.reads, *node.writes)]
    shapes = {tuple(extents(access.source)) for access in (*node.reads, *node.writes)}
    same = all(
        len(r) == len(variables) and all(i.same_as(v) for i, v in zip(r, variables, strict=True))
        for r in regions
    )
    return len(shapes) == 1 and same
