"""Which blocks go. A block is all taps of one input channel in N consecutive filters (SUBP, section 3)."""

import torch


def magnitudes(weight: torch.Tensor, n: int) -> torch.Tensor:
    """(groups, in): the L1 norm of each block of weight (out, in, kh, kw)."""
    return weight.abs().reshape(weight.shape[0] // n, n, weight.shape[1], -1).sum((1, 3))


def block_mask(scores: torch.Tensor, sparsity: float) -> torch.Tensor:
    """(groups, in) bool: in each group the floor(sparsity * in) blocks of the lowest score are False."""
    count = int(sparsity * scores.shape[1])
    lowest = scores.argsort(dim=1, stable=True)[:, :count]
    return torch.ones_like(scores, dtype=torch.bool).scatter_(1, lowest, False)


def expand(mask: torch.Tensor, n: int) -> torch.Tensor:
    """A block mask (groups, in) as (out, in, 1, 1)."""
    return mask.repeat_interleave(n, 0)[:, :, None, None]
