"""Any other operator: a PrimFunc that Relax legalised, scheduled by simple rules and put behind the kernel ABI.

These kernels have to be right for every operator and decent for most: producers that are read once are inlined, the outer loops
run in parallel, the innermost loop over neighbouring outputs becomes vectors, and sums keep the order of the legalised program.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from tvm import s_tir, tirx
from tvm.tirx.script import builder as T

from subpc.schedules import activation
from subpc.schedules.isa import VectorIsa
from subpc.schedules.kernel import kernel_builder

# Loops with less work than this (in elementary operations) run on one thread: starting more costs as much.
MIN_PARALLEL_WORK = 8192
# Outputs that one reduction tile keeps in registers, in vectors.
TILE_VECTORS = 4
# Vectors of an elementwise chunk: long enough to amortise its loop, short enough to share out.
CHUNK_VECTORS = 64

# What is left of scheduling when blocks become plain loops and buffers; the pipeline of TVM's build does the rest.
LOWER_BLOCKS = tvm.transform.Sequential(
    [
        s_tir.transform.LowerInitBlock(),
        s_tir.transform.PlanAndUpdateBufferAllocationLocation(),
        s_tir.transform.ConvertBlocksToOpaque(),
        s_tir.transform.CompactBufferAllocation(),
        s_tir.transform.LowerMatchBuffer(),
        s_tir.transform.StmtSimplify(),
        s_tir.transform.LowerOpaqueBlock(),
    ]
)

# Functions for which LLVM would call libm, lane by lane.
POLYNOMIALS = {
    "tirx.exp": activation.exp,
    "tirx.sigmoid": activation.sigmoid,
    "tirx.erf": activation.erf,
    "tirx.tanh": activation.tanh,
}


@dataclass(frozen=True, kw_only=True)
class Fallback:
    """A legalised PrimFunc as a kernel. Its buffer parameters, in order, are the operands; make one with `Fallback.of`."""

    name: str
    digest: str
    operands: tuple[str, ...]
    func: tirx.PrimFunc = field(compare=False, repr=False)

    @classmethod
    def of(cls, func: tirx.PrimFunc, name: str = "op") -> "Fallback":
        """Wrap `func`; equal programs make equal kernels whatever their names."""
        for param in func.params:
            if not tirx.is_buffer_var(param):
                raise ValueError(f"fallback kernel {name}: parameter {param} is no buffer")
            if not all(isinstance(extent, tirx.IntImm) for extent in _shape(param)):
                raise ValueError(f"fallback kernel {name}: the shape of {param} is not static")
        plain = func.without_attr("global_symbol") if func.attrs and "global_symbol" in func.attrs else func
        digest = hashlib.sha256(plain.script().encode()).hexdigest()[:24]
        return cls(name=name, digest=digest, operands=tuple(f"p{i}" for i in range(len(func.params))), func=plain)

    @property
    def family(self) -> str:
        return "fallback"

    @property
    def flops(self) -> int:
        """Iterations of all blocks: the nearest that can be said of any operator."""
        schedule = s_tir.Schedule(tvm.IRModule({"main": self.func.with_attr("global_symbol", "main")}))
        return sum(_iterations(schedule, block) for block in _blocks(schedule))

    def prim_func(self, symbol: str, isa: VectorIsa) -> tvm.tirx.PrimFunc:
        func = self.func.with_attr("global_symbol", "main")
        lowered = LOWER_BLOCKS(tvm.IRModule({"main": scheduled(func, isa.lanes)}))["main"]
        body = _without_libm(lowered.body)
        operands = {name: (prod(_extents(p)), _dtype(p)) for name, p in zip(self.operands, lowered.params, strict=True)}
        with kernel_builder(symbol, operands) as kernel:
            for flat, param in zip(kernel.buffers, lowered.params, strict=True):
                # The very variable of the old parameter becomes a view of the pointer: no substitution in the body.
                T.add_to_parent(tirx.DeclBuffer(param, data=tirx.buffer_data(flat)))
            with _workspaces([a.buffer for a in _outer_allocations(body)]):
                T.add_to_parent(_without_allocations(body))
        assert kernel.func is not None
        return kernel.func


@contextmanager
def _workspaces(buffers: list[Any]) -> Iterator[None]:
    """Take intermediate results from the runtime's pool of the calling thread.

    TVM would do so itself, but hoists the allocations out of reach of what kernel_builder tells it about the device.
    """
    pointers = []
    for buffer in buffers:
        size = tirx.const(prod(_extents(buffer)) * _bytes(_dtype(buffer)), "uint64")
        # Arguments: device type (CPU), device, bytes, and two hints about the elements' type that the CPU ignores.
        pointer = tvm.ir.PointerType(tvm.ir.PrimType(_dtype(buffer)), "global")
        pointers.append(T.bind(tirx.call_extern(pointer, "TVMBackendAllocWorkspace", 1, 0, size, 2, 32)))
        T.add_to_parent(tirx.DeclBuffer(buffer, data=pointers[-1]))
    yield
    for pointer in reversed(pointers):
        T.evaluate(tirx.call_extern("int32", "TVMBackendFreeWorkspace", 1, 0, pointer))


def _bytes(dtype: str) -> int:
    return 1 if dtype == "bool" else int(np.dtype(dtype).itemsize)


def _outer_allocations(stmt: Any) -> list[Any]:
    """The allocations outside of parallel loops; those inside belong to a task, are small, and stay where they are."""
    if isinstance(stmt, tirx.AllocBuffer):
        return [stmt]
    if isinstance(stmt, tirx.SeqStmt):
        return [a for part in stmt.seq for a in _outer_allocations(part)]
    if isinstance(stmt, tirx.For) and stmt.kind == tirx.ForKind.PARALLEL:
        return []
    return _outer_allocations(stmt.body) if isinstance(stmt, tirx.For | tirx.AttrStmt) else []


def _without_allocations(body: Any) -> Any:
    outer = _outer_allocations(body)

    def drop(stmt: Any) -> Any:
        return tirx.Evaluate(0) if any(stmt.buffer.same_as(o.buffer) for o in outer) else stmt

    return tvm_ffi.structural_map(body, (tirx.AllocBuffer, drop))


def _shape(param: Any) -> Any:
    return param.ty.shape


def _extents(param: Any) -> list[int]:
    return [int(extent) for extent in _shape(param)]


def _dtype(param: Any) -> str:
    return str(param.ty.dtype)


def _without_libm(body: Any) -> Any:
    """Put polynomials in place of float32 calls that LLVM would hand to libm."""

    def replace(call: Any) -> Any:
        name = getattr(call.op, "name", "")
        if name in POLYNOMIALS and str(call.ty.dtype) == "float32":
            return POLYNOMIALS[name](call.args[0], 1)
        return call

    return tvm_ffi.structural_map(body, (tvm.ir.Call, replace))


def scheduled(func: tirx.PrimFunc, lanes: int) -> tirx.PrimFunc:
    """`func` with inlined producers, parallel outer loops and vectors; a block that resists stays as it was."""
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


def _iterations(schedule: s_tir.Schedule, block: Any) -> int:
    return prod(_extent(schedule, loop) for loop in schedule.get_loops(block))


def _extent(schedule: s_tir.Schedule, loop: Any) -> int:
    return int(schedule.get(loop).extent)


def _is_spatial(schedule: s_tir.Schedule, block: Any) -> bool:
    return all(v.iter_type == tirx.IterVar.DataPar for v in schedule.get(block).iter_vars)


def _inline(schedule: s_tir.Schedule, block: Any) -> None:
    """Compute a producer where it is used, unless that repeats its work: in several consumers, or in a reduction that rereads it."""
    consumers = schedule.get_consumers(block)
    if not consumers or not _is_spatial(schedule, block):
        return
    work = _iterations(schedule, block)
    if len(consumers) > 1 and _has_calls(schedule.get(block).body):
        return
    if any(_iterations(schedule, c) > work and not _is_spatial(schedule, c) for c in consumers):
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
    """Parallel outer loops and a vector inside; blocks that are neither maps nor plain reductions are left alone."""
    loops, kinds = schedule.get_loops(block), [v.iter_type for v in schedule.get(block).iter_vars]
    if len(loops) != len(kinds) or not set(kinds) <= {tirx.IterVar.DataPar, tirx.IterVar.CommReduce}:
        return
    spatial = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == tirx.IterVar.DataPar]
    reduce = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == tirx.IterVar.CommReduce]
    if not spatial:
        return
    work = _iterations(schedule, block)
    inner = _innermost_is_a_row(schedule.get(block))
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


def _schedule_map(schedule: s_tir.Schedule, block: Any, spatial: list[Any], lanes: int) -> list[Any]:
    """Vectors along the last axis, or along all of them where every operand has the same index; returns the outer loops."""
    if lanes and _same_index_everywhere(schedule.get(block)):
        size = _tile(_iterations(schedule, block), lanes, CHUNK_VECTORS)
        if size:
            outer, inner = schedule.split(schedule.fuse(*spatial), [None, size])
            _vectorize(schedule, inner, lanes)
            return [outer]
    *outer_loops, inner = spatial
    if lanes and _extent(schedule, inner) % lanes == 0:
        _vectorize(schedule, inner, lanes)
    return outer_loops


def _schedule_reduction(
    schedule: s_tir.Schedule, block: Any, spatial: list[Any], reduce: list[Any], lanes: int, work: int
) -> None:
    """Neighbouring outputs inside, the reduction around them; the sums of a tile stay in registers where they fill whole vectors."""
    *outer, inner = spatial
    extent = _extent(schedule, inner)
    if lanes == 0 or extent < lanes:
        _parallel(schedule, spatial, work)
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
    """The largest divisor of `extent` that is a multiple of `lanes`, at most `most` vectors; 0 if there is none."""
    return next((v * lanes for v in range(most, 0, -1) if extent % (v * lanes) == 0), 0)


def _vectorize(schedule: s_tir.Schedule, loop: Any, lanes: int) -> None:
    """Run a loop of whole vectors as such; a few of them are unrolled."""
    count = _extent(schedule, loop) // lanes
    outer, inner = schedule.split(loop, [None, lanes])
    schedule.vectorize(inner)
    if count <= TILE_VECTORS:
        schedule.unroll(outer)


def _innermost_is_a_row(node: Any) -> bool:
    """Whether neighbours along the last output axis are neighbours in every operand, or share its element."""
    spatial = [v.var for v in node.iter_vars if v.iter_type == tirx.IterVar.DataPar]
    regions = [[r.min for r in access.region] for access in (*node.reads, *node.writes)]
    return bool(spatial) and not any(_uses(index, spatial[-1]) for region in regions for index in region[:-1])


def _uses(index: Any, var: Any) -> bool:
    return any(v.same_as(var) for v in tirx.analysis.undefined_vars(index))


def _same_index_everywhere(node: Any) -> bool:
    """Whether all operands have the shape of the output and are read where it is written."""
    variables = [v.var for v in node.iter_vars]
    regions = [[r.min for r in access.region] for access in (*node.reads, *node.writes)]
    shapes = {tuple(_extents(access.source)) for access in (*node.reads, *node.writes)}
    same = all(len(r) == len(variables) and all(i.same_as(v) for i, v in zip(r, variables, strict=True)) for r in regions)
    return len(shapes) == 1 and same
