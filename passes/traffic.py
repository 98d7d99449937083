"""How much memory a kernel call touches: the sizes of its operands, without the zeros around framed
planes."""

from collections.abc import Sequence

import tvm
import tvm_ffi
from tvm import tirx

from subpc.passes.program import Location, Program, Step

_BITS_A_BYTE = 8


def operand_bytes(function: tvm.tirx.PrimFunc) -> tuple[int, ...]:
    """Bytes behind each pointer argument of a kernel, in order, as its own declarations say."""
    declared: list[tirx.DeclBuffer] = []
    tvm_ffi.structural_walk(function.body, (tirx.DeclBuffer, declared.append))
    sizes = []
    for param in function.params:
        # The builder declares every pointer first; views that a kernel makes of it later are no
        # larger.
        buffer = next(d.buffer for d in declared if d.data is not None and param.same_as(d.data))
        size = -(-tvm.DataType(str(buffer.ty.dtype)).bits // _BITS_A_BYTE)
        for extent in buffer.ty.shape:
            size *= int(extent)
        sizes.append(size)
    return tuple(sizes)


def step_bytes(program: Program, step: Step, sizes: Sequence[int]) -> int:
    """Bytes that one kernel call reads and writes at least once; sizes: `operand_bytes` of its
    kernel.

    Weights and compact tensors count in full. Of a framed tensor the pixels count, not the halo: a
    slice of a concatenation counts with its own channels only.
    """
    return sum(
        _pixels_only(program, operand, size)
        for operand, size in zip(step.operands, sizes, strict=True)
    )


def _pixels_only(program: Program, operand: Location, size: int) -> int:
    layout = program.buffers[operand.index].layout if operand.space == "workspace" else None
    if layout is None:
        return size
    frame = layout.frame
    return size * frame.height * frame.width // frame.plane
