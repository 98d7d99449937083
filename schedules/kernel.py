"""The kernel ABI, and the few lines every kernel builder shares.

A kernel is a C function `int32 symbol(pointer, pointer, ...)`: all shapes are compile-time
constants, all offsets are in the pointers. It runs its own parallel loop on the caller's worker
pool and always returns 0. Kernels are values: two equal kernels are one workload and are compiled
once, into an object file of their own.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import tvm
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from subpc.schedules.epilogue import Epilogue
from subpc.schedules.isa import VectorIsa
from subpc.schedules.layout import TensorLayout
from subpc.schedules.operand import Operand
from subpc.schedules.workload import Choice

NO_EPILOGUE = Epilogue()


class Kernel(Protocol):
    """One workload of a kernel family: hashable, with everything that the generated code depends
    on.

    family: its name in symbols and reports. flops: useful floating-point operations of one call
    (multiply-add = 2).
    operands: names of the pointer arguments in order; the result comes last. sizes: what stands
    behind each of them.
    result_layout: how the result lies in memory, None where no layer's result can be read there;
    result_shape: its sizes as the model has them. epilogue: what it does besides its sum.
    footprint: what of its result's frame it writes; None: the pixels and nothing else.
    """

    @property
    def family(self) -> str: ...
    @property
    def operands(self) -> tuple[str, ...]: ...
    @property
    def flops(self) -> int: ...
    @property
    def result_layout(self) -> TensorLayout | None: ...
    @property
    def result_shape(self) -> tuple[int, ...]: ...
    @property
    def epilogue(self) -> Epilogue: ...
    @property
    def footprint(self) -> Hashable: ...
    def sizes(self) -> dict[str, Operand]: ...
    def choice(self, isa: VectorIsa) -> Choice | None:
        """Its schedule as plain data, None where tuning has nothing to say."""

    def prim_func(self, symbol: str, isa: VectorIsa) -> tvm.tirx.PrimFunc:
        """Its code as the C function `symbol`."""


class KernelBase(ABC):
    """A function around the loops that a kernel emits. Kernels are frozen dataclasses, and many
    have a field `epilogue`, which is why that is not here."""

    @property
    @abstractmethod
    def family(self) -> str: ...
    @property
    @abstractmethod
    def flops(self) -> int: ...
    @abstractmethod
    def sizes(self) -> dict[str, Operand]: ...
    @abstractmethod
    def emit(self, b: dict[str, Any], isa: VectorIsa) -> None:
        """The kernel's loops; b: its operands by name, as flat buffers."""

    @property
    def operands(self) -> tuple[str, ...]:
        return tuple(self.sizes())

    @property
    def result_layout(self) -> TensorLayout | None:
        return None

    @property
    def result_shape(self) -> tuple[int, ...]:
        return self.result_layout.shape if self.result_layout is not None else ()

    @property
    def footprint(self) -> Hashable:
        return None

    def choice(self, isa: VectorIsa) -> Choice | None:
        return None

    def prim_func(self, symbol: str, isa: VectorIsa) -> tvm.tirx.PrimFunc:
        sizes = self.sizes()
        with kernel_builder(symbol, sizes) as frame:
            self.emit(dict(zip(sizes, frame.buffers, strict=True)), isa)
        assert frame.func is not None
        return frame.func


class PlainKernel(KernelBase):
    """A kernel that does nothing besides."""

    @property
    def epilogue(self) -> Epilogue:
        return NO_EPILOGUE


def symbol_of(kernel: Kernel) -> str:
    """A stable C name for the workload: family and a hash of its fields."""
    return f"subpc_{kernel.family}_{hashlib.sha256(repr(kernel).encode()).hexdigest()[:16]}"


class Pointers:
    """The pointer arguments of a kernel under construction, as flat one-dimensional buffers."""

    def __init__(self, names: Sequence[str], dtypes: Sequence[str]) -> None:
        self._handles = [
            T.arg(n, T.handle(d, "global")) for n, d in zip(names, dtypes, strict=True)
        ]
        self._dtypes = list(dtypes)

    def buffers(self, sizes: Sequence[int]) -> list[Any]:
        """Declare argument i as a flat buffer of sizes[i] elements."""
        return [
            T.decl_buffer((size,), dtype, data=handle)
            for size, dtype, handle in zip(sizes, self._dtypes, self._handles, strict=True)
        ]


@dataclass
class KernelFrame:
    """Handed out by `kernel_builder`: the buffers to compute on, and the finished function
    afterwards."""

    buffers: list[Any]
    func: tvm.tirx.PrimFunc | None = None


@contextmanager
def kernel_builder(symbol: str, operands: Mapping[str, Operand]) -> Iterator[KernelFrame]:
    """Open a PrimFunc that follows the kernel ABI, with these pointer arguments by name."""
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name(symbol)
        T.func_ret(tvm.ir.PrimType("int32"))
        pointers = Pointers(list(operands), [operand.dtype for operand in operands.values()])
        # calling_conv 1: the C signature is final, TVM must not wrap it into its packed calling
        # convention.
        T.func_attr({"tirx.noalias": True, "global_symbol": symbol, "calling_conv": 1})
        frame = KernelFrame(pointers.buffers([operand.elements for operand in operands.values()]))
        # What MakePackedAPI would have said: small arrays live on the stack of the CPU.
        with T.attr(0, "device_id", 0), T.attr(0, "device_type", 1):
            yield frame
        T.Return(T.int32(0))
    frame.func = builder.get()


@contextmanager
def thread_memory(wanted: Sequence[Operand]) -> Iterator[list[Any]]:
    """Pointers to memory from the runtime's pool of the calling thread: a task gets what the last
    one used."""
    pointers = []
    for operand in wanted:
        # Arguments: device type (CPU), device, bytes, and two hints about the elements' type that
        # the CPU ignores.
        kind, count = (
            tvm.ir.PointerType(tvm.ir.PrimType(operand.dtype), "global"),
            tirx.const(operand.bytes, "uint64"),
        )
        pointers.append(
            T.bind(tirx.call_extern(kind, "TVMBackendAllocWorkspace", 1, 0, count, 2, 32))
        )
    yield pointers
    for pointer in reversed(pointers):
        T.evaluate(tirx.call_extern("int32", "TVMBackendFreeWorkspace", 1, 0, pointer))


@contextmanager
def thread_buffers(wanted: Sequence[Operand]) -> Iterator[list[Any]]:
    """The same memory as flat buffers."""
    with thread_memory(wanted) as pointers:
        yield [
            T.decl_buffer((o.elements,), o.dtype, data=p)
            for o, p in zip(wanted, pointers, strict=True)
        ]
