"""Exported programs that PyTorch's PT2E quantized: their operators, and their weights that are
codes."""

import contextlib
import importlib

import torch
from torch import fx

from subpc.frontend.from_torch.nodes import arguments
from subpc.frontend.weight_codes import WeightCodes, weight_codes

NAMESPACE = "quantized_decomposed"


def register_quantized() -> None:
    """Let PyTorch know its operators on codes, which it does not by itself."""
    with contextlib.suppress(ImportError):
        importlib.import_module("torch.ao.quantization.fx._decomposed")


def codes_of(root: fx.Node, values: dict[fx.Node, torch.Tensor]) -> WeightCodes | None:
    """The codes that a weight is dequantized from; None where it is no such weight.

    values: of the nodes that the program owns.
    """
    target = root.target
    if getattr(target, "namespace", "") != NAMESPACE:
        return None
    a = arguments(root)
    stored = values.get(a["input"])
    if stored is None or stored.dtype.is_floating_point or stored.ndim < 2:
        return None
    if target is torch.ops.quantized_decomposed.dequantize_per_tensor.default:
        return weight_codes(stored.numpy(), a["scale"], a["zero_point"], 0)
    if target is torch.ops.quantized_decomposed.dequantize_per_channel.default:
        scales, zeros = values.get(a["scales"]), values.get(a["zero_points"])
        if scales is None or (zeros is None and a["zero_points"] is not None):
            return None
        zero = 0 if zeros is None else zeros.numpy()
        return weight_codes(stored.numpy(), scales.numpy(), zero, int(a["axis"]))
    return None
