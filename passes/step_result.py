"""Where a kernel call leaves its result: what a comparison of models layer by layer reads."""

from subpc.library.report import ResultInfo
from subpc.passes.plan_memory import MemoryPlan
from subpc.passes.program import BLOB, Step
from subpc.schedules.layout import itemsize
from subpc.schedules.quantization import CODES


def step_result(step: Step, plan: MemoryPlan) -> ResultInfo | None:
    """The result of a step; None where the kernel does not say how it lies in memory, where nobody
    knows what its codes stand for, and where it exists in pieces only."""
    layout, codes = step.kernel.result_layout, step.quantization
    if layout is None or not step.operands:
        return None
    if layout.dtype != BLOB and (layout.dtype != CODES or codes is None):
        return None
    space, index, offset = plan.resolve(step.operands[-1])
    if space not in ("workspace", "output"):
        return None
    return ResultInfo(
        space=space,
        index=index,
        offset=offset // itemsize(layout.dtype),
        shape=step.kernel.result_shape,
        image=layout.image,
        plane=layout.frame.plane,
        first=layout.frame.first,
        pitch=layout.frame.pitch,
        residual=step.kernel.epilogue.residual,
        activation=step.kernel.epilogue.activation.kind,
        dtype=layout.dtype,
        scale=codes.scale if codes is not None else 1.0,
        zero_point=codes.zero_point if codes is not None else 0,
    )
