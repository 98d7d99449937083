"""An exported program in simple operators, except those that passes want to see whole."""

from typing import Any

import torch
from torch.export import ExportedProgram

from subpc.errors import UnsupportedModelError
from subpc.frontend.from_torch.export import quiet
from subpc.frontend.from_torch.supported import KEPT_WHOLE
from subpc.frontend.messages import first_line


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
