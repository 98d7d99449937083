"""An exported program in simple operators, except those that passes want to see whole."""

from typing import Any

import torch
from torch.export import ExportedProgram

from subpc.errors import UnsupportedModelError
from subpc.frontend.from_torch.export import quiet
from subpc.frontend.messages import first_line

# Composites that one Relax operator, or one pattern, stands for. Opened up, a pass would have to
# recognise them again. relu6 is not here: opened, it becomes the clip that ONNX writes too.
KEPT_WHOLE = frozenset(
    {
        "aten.adaptive_avg_pool1d.default",
        "aten.adaptive_avg_pool2d.default",
        "aten.col2im.default",
        "aten.conv1d.default",
        "aten.conv2d.default",
        "aten.hardsigmoid.default",
        "aten.hardswish.default",
        "aten.layer_norm.default",
        "aten.linear.default",
        "aten.max_pool1d.default",
        "aten.max_pool2d.default",
        "aten.prelu.default",
        "aten.silu.default",
        "aten.softmax.int",
        "aten.log_softmax.int",
        "aten.upsample_bicubic2d.vec",
        "aten.upsample_bilinear2d.vec",
        "aten.upsample_nearest2d.vec",
    }
)


def decompose(program: ExportedProgram) -> ExportedProgram:
    """In-place operators made functional and composites opened, except those that passes want to
    see whole."""
    table = torch.export.default_decompositions()
    for operator in list(table):
        if str(operator) in KEPT_WHOLE:
            del table[operator]
    table[torch.ops.aten._convolution.default] = _plain_convolution
    try:
        with quiet():
            decomposed: ExportedProgram = program.run_decompositions(table)
    except Exception as error:
        raise UnsupportedModelError(
            "The exported program cannot be decomposed into simple operators:"
            f" {first_line(error)}\nExport the model again with this torch."
        ) from error
    return decomposed


def _plain_convolution(*arguments: Any) -> torch.Tensor:
    """What a traced script calls a convolution: the same, with switches for other backends behind
    it."""
    result: torch.Tensor = torch.ops.aten.convolution.default(*arguments[:9])
    return result
