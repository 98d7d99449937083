"""How far a network's outputs are from what they should be."""

from collections.abc import Sequence

import torch
import tvm
from torch import Tensor

from subpc.calibration.interpret import Interpreter

_TINY = 1e-30


def deviation(
    module: tvm.IRModule,
    batches: Sequence[tuple[Tensor, ...]],
    expected: Sequence[Sequence[Tensor]],
) -> float:
    """The squared error of each output as a share of its square, all outputs added; infinite where
    an output is not finite.

    batches: of the inputs (n, ...); expected: the outputs for each of them.
    """
    interpreter = Interpreter(module)
    lost: dict[int, float] = {}
    whole: dict[int, float] = {}
    for batch, wanted in zip(batches, expected, strict=True):
        for i, (found, right) in enumerate(zip(interpreter.run(*batch), wanted, strict=True)):
            lost[i] = lost.get(i, 0.0) + _power(found.double() - right.double())
            whole[i] = whole.get(i, 0.0) + _power(right.double())
    total = sum(lost[i] / max(whole[i], _TINY) for i in lost)
    return total if total < float("inf") else float("inf")


def _power(x: Tensor) -> float:
    return float(torch.sum(x * x))
