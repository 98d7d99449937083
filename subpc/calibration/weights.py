"""Int8 codes of float weights, one scale for each output channel."""

import numpy as np
import torch
from torch import Tensor

# Symmetric: -128 stands for nothing.
LARGEST = 127
# Scales that are tried, as shares of the one that reaches the largest weight.
_SHARES = torch.linspace(0.6, 1.0, 41)
_SMALLEST_SCALE = 1e-30
# Weights that are coded at a time: each scale goes through all of them several times.
_CACHED = 1 << 16


def int8_codes(weight: Tensor, importance: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Codes (out, ...) int8 and scales (out,) float32 of a weight (out, ...), of the scales tried
    those of the least squared error.

    importance: (in / groups * taps,) or (out, the same): what an error of each weight counts.
    """
    rows = weight.detach().float().flatten(1)
    weigh = torch.ones(1, rows.shape[1]) if importance is None else importance.float()
    weigh = weigh.reshape(-1, rows.shape[1]).expand_as(rows)
    filters = max(1, _CACHED // rows.shape[1])
    parts = [
        _coded(rows[first : first + filters], weigh[first : first + filters])
        for first in range(0, len(rows), filters)
    ]
    codes, scales = (torch.cat(part) for part in zip(*parts, strict=True))
    return codes.view(weight.shape), scales


def _coded(rows: Tensor, weigh: Tensor) -> tuple[Tensor, Tensor]:
    """Codes (out, weights) and scales (out,) of so few rows that they stay in cache."""
    top = torch.linalg.vector_norm(rows, torch.inf, 1, keepdim=True) / LARGEST
    top = top.clamp(min=_SMALLEST_SCALE)
    best, least = top, torch.full_like(top, torch.inf)
    for share in _SHARES:
        scale = top * share
        errors = _rounded(rows, scale).mul_(scale).sub_(rows).square_().mul_(weigh)
        total = errors.sum(1, keepdim=True)
        best = torch.where(total <= least, scale, best)
        least = torch.minimum(total, least)
    return _rounded(rows, best).to(torch.int8), best[:, 0]


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
