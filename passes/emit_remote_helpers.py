"""Two small functions for machines that are reached through TVM's RPC only: zero a tensor there,
and read the CPU's name."""

from typing import Any

import tvm
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

ZERO, READ_CPUINFO = "subpc_zero", "subpc_read_cpuinfo"
CPUINFO_BYTES = 4096
_O_RDONLY = 0


def emit_zero(floats: int) -> tvm.tirx.PrimFunc:
    """subpc_zero(x): x[:] = 0, (floats,) float32."""
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name(ZERO)
        x = T.arg("x", T.buffer((floats,), "float32"))
        T.func_attr({"tirx.noalias": True, "global_symbol": ZERO})
        with T.parallel(0, floats) as i:
            T.buffer_store(x, T.float32(0), [i])
    return _finished(builder)


def emit_read_cpuinfo() -> tvm.tirx.PrimFunc:
    """subpc_read_cpuinfo(text): the first bytes of /proc/cpuinfo, which name the CPU;
    (CPUINFO_BYTES,) uint8."""
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name(READ_CPUINFO)
        text = T.arg("text", T.buffer((CPUINFO_BYTES,), "uint8"))
        T.func_attr({"tirx.noalias": True, "global_symbol": READ_CPUINFO})
        opened = tirx.call_extern("int32", "open", tvm.ir.StringImm("/proc/cpuinfo"), _O_RDONLY)
        count = tirx.const(CPUINFO_BYTES, "int64")
        T.evaluate(tirx.call_extern("int64", "read", opened, T.address_of(text[0]), count))
    return _finished(builder)


def _finished(builder: IRBuilder) -> tvm.tirx.PrimFunc:
    function: Any = builder.get()
    return function
