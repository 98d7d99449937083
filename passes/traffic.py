"""How much memory a kernel call touches: the sizes of its operands, without the zeros around framed
planes."""

from subpc.passes.program import Location, Program, Step


def step_bytes(program: Program, step: Step) -> int:
    """Bytes that one kernel call reads and writes at least once.

    Weights and compact tensors count in full. Of a framed tensor the pixels count, not the halo: a
    slice of a concatenation counts with its own channels only.
    """
    return sum(
        _pixels_only(program, place, operand.bytes)
        for place, operand in zip(step.operands, step.kernel.sizes().values(), strict=True)
    )


def _pixels_only(program: Program, operand: Location, size: int) -> int:
    layout = program.buffers[operand.index].layout if operand.space == "workspace" else None
    if layout is None:
        return size
    frame = layout.frame
    return size * frame.height * frame.width // frame.plane
