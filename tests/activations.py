"""Every activation of the kernels as PyTorch computes it."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

# Kind -> function of a tensor, and of what stands behind the kind in an attribute: bounds, a slope.
REFERENCE: dict[str, Callable[..., Tensor]] = {
    "none": lambda x: x,
    "relu": functional.relu,
    "relu6": functional.relu6,
    "clip": lambda x, low, high: x.clamp(low, high),
    "leaky_relu": functional.leaky_relu,
    "hardsigmoid": functional.hardsigmoid,
    "hardswish": functional.hardswish,
    "sigmoid": torch.sigmoid,
    "silu": functional.silu,
    "tanh": torch.tanh,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "exp": torch.exp,
}
