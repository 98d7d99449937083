"""Any other operator: a PrimFunc that Relax legalised, scheduled by simple rules and put behind the
kernel ABI."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import Any

import tvm
import tvm_ffi
from tvm import s_tir, tirx
from tvm.tirx.script import builder as T

from subpc.schedules import activation
from subpc.schedules.bounded_reads import bounded_reads
from subpc.schedules.fallback_schedule import extents, iterations, scheduled
from subpc.schedules.fallback_sums import with_partial_sums
from subpc.schedules.isa import VectorIsa
from subpc.schedules.kernel import PlainKernel, thread_memory
from subpc.schedules.operand import Operand
from subpc.schedules.special_values import reduced_from_infinity, with_special_values

# What is left of scheduling when blocks become plain loops and buffers; the pipeline of TVM's build
# does the rest.
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
class Fallback(PlainKernel):
    """A legalised PrimFunc as a kernel. Its buffer parameters p0, p1, ... are the operands; make
    one with `Fallback.of`."""

    name: str
    digest: str
    func: tirx.PrimFunc = field(compare=False, repr=False)

    @classmethod
    def of(cls, func: tirx.PrimFunc, name: str = "op") -> "Fallback":
        """Wrap `func`; equal programs make equal kernels whatever their names."""
        for param in func.params:
            if not tirx.is_buffer_var(param):
                raise ValueError(f"fallback kernel {name}: parameter {param} is no buffer")
            if not all(isinstance(extent, tirx.IntImm) for extent in _shape(param)):
                raise ValueError(f"fallback kernel {name}: the shape of {param} is not static")
        plain = (
            func.without_attr("global_symbol")
            if func.attrs and "global_symbol" in func.attrs
            else func
        )
        digest = hashlib.sha256(plain.script().encode()).hexdigest()[:24]
        return cls(name=name, digest=digest, func=plain)

    @property
    def family(self) -> str:
        return "fallback"

    @property
    def flops(self) -> int:
        """Iterations of all blocks: the nearest that can be said of any operator."""
        return iterations(self.func.with_attr("global_symbol", "main"))

    def sizes(self) -> dict[str, Operand]:
        return {f"p{i}": _operand(param) for i, param in enumerate(self.func.params)}

    def emit(self, b: dict[str, Any], isa: VectorIsa) -> None:
        func = reduced_from_infinity(bounded_reads(self.func)).with_attr("global_symbol", "main")
        lowered = LOWER_BLOCKS(tvm.IRModule({"main": scheduled(func, isa.lanes)}))["main"]
        body = _without_libm(lowered.body)
        for flat, param in zip(b.values(), lowered.params, strict=True):
            # The very variable of the old parameter becomes a view of the pointer: no substitution
            # in the body.
            T.add_to_parent(tirx.DeclBuffer(param, data=tirx.buffer_data(flat)))
        with _workspaces([a.buffer for a in _outer_allocations(body)]):
            T.add_to_parent(
                with_special_values(with_partial_sums(_without_allocations(body), isa.lanes))
            )


@contextmanager
def _workspaces(buffers: list[Any]) -> Iterator[None]:
    """Take intermediate results from the runtime's pool of the calling thread.

    TVM would do so itself, but hoists the allocations out of reach of what kernel_builder tells it
    about the device.
    """
    with thread_memory([_operand(buffer) for buffer in buffers]) as pointers:
        for buffer, pointer in zip(buffers, pointers, strict=True):
            T.add_to_parent(tirx.DeclBuffer(buffer, data=pointer))
        yield


def _outer_allocations(stmt: Any) -> list[Any]:
    """The allocations outside of parallel loops; those inside belong to a task, are small, and stay
    where they are."""
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


def _operand(buffer: Any) -> Operand:
    return Operand(prod(extents(buffer)), str(buffer.ty.dtype))


def _without_libm(body: Any) -> Any:
    """Put polynomials in place of float32 calls that LLVM would hand to libm."""

    def replace(call: Any) -> Any:
        name = getattr(call.op, "name", "")
        if name in POLYNOMIALS and str(call.ty.dtype) == "float32":
            return POLYNOMIALS[name](call.args[0], 1)
        return call

    return tvm_ffi.structural_map(body, (tvm.ir.Call, replace))
