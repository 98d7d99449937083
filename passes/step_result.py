"""Where a kernel call leaves its result: what a comparison of models layer by layer reads."""

from subpc.library.report import ResultInfo
from subpc.passes.plan_memory import resolve
from subpc.passes.program import Step
from subpc.schedules.activation import Activation
from subpc.schedules.chain import Chain
from subpc.schedules.conv_flat import FlatConv
from subpc.schedules.depthwise import GroupedConv
from subpc.schedules.direct_conv import DirectConv
from subpc.schedules.elementwise import Elementwise
from subpc.schedules.global_pool import GlobalPool
from subpc.schedules.interleave import Interleave
from subpc.schedules.kernel import Kernel
from subpc.schedules.layout import TensorLayout, compact_frame
from subpc.schedules.linear import Linear
from subpc.schedules.pool2d import Pool2d
from subpc.schedules.relayout import Relayout
from subpc.schedules.winograd import WinogradConv


def step_result(step: Step, offsets: list[int]) -> ResultInfo | None:
    """The result of a step; `offsets` of the program's buffers as `plan_memory` gives them.

    None where the kernel is not ours, and where the result exists in pieces only.
    """
    kernel = step.own
    if not step.operands or (isinstance(step.kernel, Chain) and not step.kernel.kept[0]):
        return None
    layout = _layout(kernel)
    space, index, offset = resolve(step.operands[-1], offsets)
    if layout is None or space not in ("workspace", "output"):
        return None
    frame, flat = layout.frame, isinstance(kernel, Linear | GlobalPool)
    plane = (layout.batch, layout.channels)
    residual, activation = _epilogue(kernel)
    return ResultInfo(
        space=space,
        index=index,
        offset=offset,
        shape=plane if flat else (*plane, frame.height, frame.width),
        image=layout.image,
        plane=frame.plane,
        first=frame.first,
        pitch=frame.pitch,
        residual=residual,
        activation=activation,
    )


def _layout(kernel: Kernel) -> TensorLayout | None:
    if isinstance(kernel, FlatConv | DirectConv | WinogradConv | GroupedConv | Pool2d | Relayout | Interleave):
        return kernel.out
    if isinstance(kernel, Elementwise):
        return kernel.layout
    if isinstance(kernel, GlobalPool):
        return TensorLayout(batch=kernel.source.batch, channels=kernel.source.channels, frame=compact_frame(1, 1))
    if isinstance(kernel, Linear):
        return TensorLayout(batch=kernel.rows, channels=kernel.outputs, frame=compact_frame(1, 1))
    return None


def _epilogue(kernel: Kernel) -> tuple[bool, str]:
    """Whether the kernel adds a residual, and the name of its activation."""
    if isinstance(kernel, FlatConv | DirectConv | WinogradConv | GroupedConv):
        return kernel.residual, kernel.activation.kind
    if isinstance(kernel, Elementwise):
        names = [part.kind for part in kernel.program if isinstance(part, Activation)]
        return "add" in kernel.program, names[-1] if names else "none"
    return False, kernel.activation.kind if isinstance(kernel, Linear | Interleave) else "none"
