"""The entry point of a library: one TIR function that calls the kernels in order with pointers into
its arguments."""

from typing import Any

import tvm
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from subpc.passes.plan_memory import MemoryPlan
from subpc.passes.program import BLOB, Location, Program
from subpc.schedules.kernel import symbol_of
from subpc.schedules.layout import itemsize

# The same number on every Linux.
CLOCK_MONOTONIC = 1


def emit_main(
    program: Program, symbol: str, plan: MemoryPlan, weight_floats: int, *, timed: bool = False
) -> tvm.tirx.PrimFunc:
    """symbol(*inputs, *outputs, weights, workspace, first_step, last_step): runs the steps first ..
    last - 1.

    TVM's packed calling convention checks shapes and types of all arguments. timed: one more tensor
    before first_step, (steps + 1, 2) int64, gets the time before each step and after the last one,
    in seconds and nanoseconds: no language binding, and no network, comes between a step and its
    clock.
    """
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name(symbol)
        spaces: dict[tuple[str, int], Any] = {}
        for i, (shape, dtype) in enumerate(program.inputs):
            spaces["input", i] = T.arg(f"input_{i}", T.buffer(shape or (1,), dtype))
        for i, (shape, dtype) in enumerate(program.outputs):
            spaces["output", i] = T.arg(f"output_{i}", T.buffer(shape or (1,), dtype))
        spaces["weights", 0] = T.arg("weights", T.buffer((weight_floats,), BLOB))
        spaces["workspace", 0] = T.arg("workspace", T.buffer((plan.floats,), BLOB))
        times = T.arg("times", T.buffer((2 * len(program.steps) + 2,), "int64")) if timed else None
        first, last = T.arg("first_step", T.int32()), T.arg("last_step", T.int32())
        T.func_attr({"tirx.noalias": True, "global_symbol": symbol})
        for number, step in enumerate(program.steps):
            if step.joined and times is None:
                continue
            with T.If(tirx.all(first <= number, number < last)), T.Then():
                _read_clock(times, number)
                if step.joined:
                    continue
                pointers = [_address(spaces, operand, plan) for operand in step.operands]
                T.evaluate(tirx.call_extern("int32", symbol_of(step.kernel), *pointers))
        _read_clock(times, len(program.steps))
    return builder.get()


def _read_clock(times: Any, index: int) -> None:
    """Store the time as entry `index`, if times are wanted."""
    if times is not None:
        T.evaluate(
            tirx.call_extern(
                "int32", "clock_gettime", CLOCK_MONOTONIC, T.address_of(times[2 * index])
            )
        )


def _address(spaces: dict[tuple[str, int], Any], operand: Location, plan: MemoryPlan) -> Any:
    space, index, offset = plan.resolve(operand)
    buffer = spaces[space, index]
    element, rest = divmod(offset, itemsize(str(buffer.dtype)))
    flat = element > 0 and len(buffer.shape) > 1
    here = T.address_of(
        _flat(buffer, element) if flat else buffer[(0,) * (len(buffer.shape) - 1) + (element,)]
    )
    # A tensor of bytes may begin inside of what the space counts in.
    return tirx.handle_add_byte_offset(here, rest) if rest else here


def _flat(buffer: Any, offset: int) -> Any:
    """Element `offset` of a contiguous array of several dimensions."""
    indices: list[int] = []
    for extent in reversed([int(e) for e in buffer.shape]):
        indices.insert(0, offset % extent)
        offset //= extent
    return buffer[tuple(indices)]
