"""The kernel ABI, and the few lines every kernel builder shares.

A kernel is a C function `int32 symbol(pointer, pointer, ...)`: all shapes are compile-time constants, all offsets are in the
pointers. It runs its own parallel loop on the caller's worker pool and always returns 0. Kernels are values: two equal kernels are one
workload and are compiled once, into an object file of their own.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import tvm
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from subpc.schedules.isa import VectorIsa
from subpc.schedules.layout import LINE

# Bytes of a float32.
FLOAT = 4
# How far ahead a convolution asks for what it will read: input planes of this many kept channels later, and weights this many floats
# later. Gathered planes and new weight panels are nothing that the hardware foresees: 10 % of a ResNet-50 (docs/performance.md).
PREFETCH_CHANNELS = 12
# The farthest that a tuned kernel looks ahead: the index of kept channels is this much longer than its channels.
MAX_PREFETCH_CHANNELS = 24
PREFETCH_WEIGHTS = 1024


class Kernel(Protocol):
    """One workload of a kernel family: hashable, with everything that the generated code depends on.

    operands: names of the pointer arguments in order; outputs come last.
    flops: useful floating-point operations of one call (multiply-add = 2).
    """

    @property
    def family(self) -> str: ...
    @property
    def operands(self) -> tuple[str, ...]: ...
    @property
    def flops(self) -> int: ...
    def prim_func(self, symbol: str, isa: VectorIsa) -> tvm.tirx.PrimFunc: ...


def symbol_of(kernel: Kernel) -> str:
    """A stable C name for the workload: family and a hash of its fields."""
    return f"subpc_{kernel.family}_{hashlib.sha256(repr(kernel).encode()).hexdigest()[:16]}"


class Pointers:
    """The pointer arguments of a kernel under construction, as flat one-dimensional buffers."""

    def __init__(self, names: Sequence[str], dtypes: Sequence[str]) -> None:
        self._handles = [T.arg(n, T.handle(d, "global")) for n, d in zip(names, dtypes, strict=True)]
        self._dtypes = list(dtypes)

    def buffers(self, sizes: Sequence[int]) -> list[Any]:
        """Declare argument i as a flat buffer of sizes[i] elements."""
        return [T.decl_buffer((size,), dtype, data=handle) for size, dtype, handle in zip(sizes, self._dtypes, self._handles, strict=True)]


@dataclass
class KernelFrame:
    """Handed out by `kernel_builder`: the buffers to compute on, and the finished function afterwards."""

    buffers: list[Any]
    func: tvm.tirx.PrimFunc | None = None


@contextmanager
def kernel_builder(symbol: str, operands: dict[str, tuple[int, str]]) -> Iterator[KernelFrame]:
    """Open a PrimFunc that follows the kernel ABI; `operands` maps a name to (elements, dtype)."""
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name(symbol)
        T.func_ret(tvm.ir.PrimType("int32"))
        pointers = Pointers(list(operands), [dtype for _, dtype in operands.values()])
        # calling_conv 1: the C signature is final, TVM must not wrap it into its packed calling convention.
        T.func_attr({"tirx.noalias": True, "global_symbol": symbol, "calling_conv": 1})
        frame = KernelFrame(pointers.buffers([size for size, _ in operands.values()]))
        # What MakePackedAPI would have said: small arrays live on the stack of the CPU.
        with T.attr(0, "device_id", 0), T.attr(0, "device_type", 1):
            yield frame
        T.Return(T.int32(0))
    frame.func = builder.get()


@contextmanager
def thread_memory(wanted: Sequence[tuple[int, str]]) -> Iterator[list[Any]]:
    """Pointers to memory for (bytes, type) each, from the runtime's pool of the calling thread: a task gets what the last one used."""
    pointers = []
    for size, dtype in wanted:
        # Arguments: device type (CPU), device, bytes, and two hints about the elements' type that the CPU ignores.
        kind, count = tvm.ir.PointerType(tvm.ir.PrimType(dtype), "global"), tirx.const(size, "uint64")
        pointers.append(T.bind(tirx.call_extern(kind, "TVMBackendAllocWorkspace", 1, 0, count, 2, 32)))
    yield pointers
    for pointer in reversed(pointers):
        T.evaluate(tirx.call_extern("int32", "TVMBackendFreeWorkspace", 1, 0, pointer))


def load(buffer: Any, index: Any, lanes: int) -> Any:
    """`lanes` neighbouring elements from `index` on, as one vector."""
    return buffer[tirx.Ramp(index, 1, lanes)]


def store(buffer: Any, index: Any, value: Any, lanes: int) -> None:
    """Store a vector to `lanes` neighbouring elements from `index` on."""
    T.buffer_store(buffer, value, [tirx.Ramp(index, 1, lanes)])


def prefetch(buffer: Any, index: Any, floats: int, *, write: bool) -> None:
    """Ask for the cache lines of `floats` elements from the line-aligned `index` on.

    write: take them away from the other cores now, while there is something to compute. Without it every store to a line that
    another core has read waits for that core: 7 GB/s instead of 49 (docs/performance.md).
    """
    for at in range(0, floats, LINE):
        T.evaluate(tirx.call_intrin("void", "tirx.prefetch", T.address_of(buffer[index + at]), int(write), 3, 1))


def splat(value: Any, lanes: int) -> Any:
    """One scalar in every lane."""
    return tirx.Broadcast(value, lanes)
