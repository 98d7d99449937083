"""What operators of codes mean: codes among the operands are what they stand for, and a result of
codes is rounded."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import tvm
from torch import Tensor
from tvm import relax

from subpc.calibration.interpret import Interpreter
from subpc.calibration.meanings import MEANINGS
from subpc.passes import ops


def evaluate_exactly(module: tvm.IRModule, *inputs: Tensor) -> list[Tensor]:
    """The outputs of main in float64, of a network with roundings or one of codes."""
    return Interpreter(module, dtype=torch.float64, meanings=OF_CODES).run(*inputs)


def encoded(x: Tensor, quantization: Sequence[float]) -> Tensor:
    """The codes of values, uint8."""
    scale, zero_point = quantization
    return (torch.round(x.double() / scale) + zero_point).clamp(0, 255).to(torch.uint8)


def decoded(codes: Tensor, quantization: Sequence[float]) -> Tensor:
    """What codes stand for, float64."""
    scale, zero_point = quantization
    return (codes.double() - zero_point) * scale


def _meaning(name: str, call: relax.Call, *operands: Any) -> Any:
    a = ops.attributes(call)
    kinds: dict[int, Sequence[float]] = dict(enumerate(a.get("quantizations", ())))
    if "x_quantization" in a:
        kinds = {0: a["x_quantization"], 3: a.get("residual_quantization", ())}
    elif name != ops.ELEMENTWISE and "quantization" in a:
        kinds = dict.fromkeys(range(len(operands)), a["quantization"])  # passed on as they are
    values = list(operands)
    for index, value in enumerate(operands):
        if value.dtype == torch.uint8:
            values[index] = decoded(value, kinds[index])
    if "weight_scales" in a:
        scales = torch.tensor(a["weight_scales"], dtype=torch.float64)
        values[1] = values[1].double() * scales.reshape(-1, *[1] * (values[1].ndim - 1))
    result = MEANINGS[name](call, *values)
    return encoded(result, a["quantization"]) if a.get("quantization") else result


OF_CODES: dict[str, Callable[..., Any]] = {name: partial(_meaning, name) for name in ops.ALL}
