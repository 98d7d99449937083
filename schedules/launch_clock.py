"""How long each worker of a parallel loop was busy: code that stands between a library and the
launcher of the worker pool.

A library calls the launcher through a pointer of its own, `__TVMBackendParallelLaunch`. While a
profile is taken, that pointer leads here; at all other times nothing of this is loaded. Calling
through pointers is more than TIR can say, so those few lines are LLVM's.
"""

from contextlib import nullcontext

import tvm
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

# Entry points: the launcher to use instead, the pool's own launcher (to be set), and cycles by
# worker.
LAUNCH, ORIGINAL, BUSY = "subpc_clock_launch", "subpc_clock_original", "subpc_clock_busy"
_TASK = "subpc_clock_task"
# A worker counts in a cache line of its own: WORKERS x CELL_WORDS 64-bit words, of which the first
# of each cell is the count.
WORKERS, CELL_WORDS = 1024, 8

# TVM keeps only what is inlined, hence the bodies under names of their own. c_backend_api.h:
# TVMBackendParallelLaunch(body, data, tasks) runs body(task, group, data) on each worker.
_LLVM = f"""
@{ORIGINAL} = global ptr null
@{BUSY} = global [{WORKERS} x [{CELL_WORDS} x i64]] zeroinitializer

define i32 @{LAUNCH}_body(ptr %body, ptr %data, i32 %tasks) alwaysinline {{
  %pair = alloca {{ ptr, ptr }}
  %second = getelementptr {{ ptr, ptr }}, ptr %pair, i32 0, i32 1
  store ptr %body, ptr %pair
  store ptr %data, ptr %second
  %launch = load ptr, ptr @{ORIGINAL}
  %code = call i32 %launch(ptr @{_TASK}, ptr %pair, i32 %tasks)
  ret i32 %code
}}

define i32 @{_TASK}_body(i32 %worker, ptr %group, ptr %pair) alwaysinline {{
  %second = getelementptr {{ ptr, ptr }}, ptr %pair, i32 0, i32 1
  %body = load ptr, ptr %pair
  %data = load ptr, ptr %second
  %start = call i64 @llvm.readcyclecounter()
  %code = call i32 %body(i32 %worker, ptr %group, ptr %data)
  %end = call i64 @llvm.readcyclecounter()
  %cycles = sub i64 %end, %start
  %row = urem i32 %worker, {WORKERS}
  %cell = getelementptr [{WORKERS} x [{CELL_WORDS} x i64]], ptr @{BUSY}, i32 0, i32 %row, i32 0
  %before = load i64, ptr %cell
  %after = add i64 %before, %cycles
  store i64 %after, ptr %cell
  ret i32 %code
}}

declare i32 @{_TASK}(i32, ptr, ptr)
declare i64 @llvm.readcyclecounter()
"""


def launch_clock() -> tvm.IRModule:
    """Both entry points, to be compiled for any x86-64 CPU."""
    return tvm.IRModule(
        {
            LAUNCH: _entry(LAUNCH, ("handle", "handle", "int32")),
            _TASK: _entry(_TASK, ("int32", "handle", "handle")),
        }
    )


def _entry(symbol: str, types: tuple[str, ...]) -> tvm.tirx.PrimFunc:
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name(symbol)
        T.func_ret(tvm.ir.PrimType("int32"))
        arguments = [
            T.arg(f"a{i}", T.handle() if kind == "handle" else T.int32())
            for i, kind in enumerate(types)
        ]
        T.func_attr({"global_symbol": symbol, "calling_conv": 1})
        # Once for both: what is imported twice is defined twice.
        with T.attr(0, "pragma_import_llvm", _LLVM) if symbol == LAUNCH else nullcontext():
            T.evaluate(tirx.call_extern("int32", f"{symbol}_body", *arguments))
        T.Return(T.int32(0))  # as every kernel does
    return builder.get()
