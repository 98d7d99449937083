"""Int8 codes of float weights, one scale for each output channel."""

import numpy as np
import torch
from torch import Tensor

# Symmetric: -128 stands for nothing.
LARGEST = 127
# Scales that are tried, as shares of the one that reaches the largest weight.
_SHARES = torch.linspace(0.6, 1.0, 41)
_SMALLEST_SCALE = 1e-30


def int8_codes(weight: Tensor, importance: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Codes (out, ...) int8 and scales (out,) float32 of a weight (out, ...), of the scales tried
    those of the least squared error.

    importance: (in / groups * taps,) or (out, the same): what an error of each weight counts.
    """
    rows = weight.detach().float().flatten(1)
    weigh = torch.ones(1, rows.shape[1]) if importance is None else importance.float()
    top = torch.linalg.vector_norm(rows, torch.inf, 1, keepdim=True) / LARGEST
    top = top.clamp(min=_SMALLEST_SCALE)
    best, least = top, torch.full_like(top, torch.inf)
    for share in _SHARES:
        scale = top * share
        errors = (_rounded(rows, scale) * scale - rows).square_().mul_(weigh).sum(1, keepdim=True)
        best = torch.where(errors <= least, scale, best)
        least = torch.minimum(errors, least)
    return _rounded(rows, best).to(torch.int8).view(weight.shape), best[:, 0]


def _rounded(rows: Tensor, scale: Tensor) -> Tensor:
    return (rows / scale).round_().clamp_(-LARGEST, LARGEST)


def bias_correction(weight: Tensor, coded: Tensor, mean: Tensor, groups: int) -> Tensor:
    """What the expected results (out,) of `weight` have more than those of `coded`, both (out, in /
    groups, ...), where the inputs' channels have the means `mean` (in,)."""
    lost = weight.double() - coded.double()
    lost = lost.reshape(*lost.shape[:2], -1).sum(2)
    out, inputs = lost.shape
    means = mean.double().reshape(groups, 1, inputs).expand(-1, out // groups, -1)
    return (lost * means.reshape(out, inputs)).sum(1)


def as_array(x: Tensor) -> np.ndarray:
    """A contiguous NumPy array of the same values."""
    return np.ascontiguousarray(x.numpy())
