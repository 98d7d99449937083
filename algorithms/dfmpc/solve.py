"""The coefficient of each channel: equation 27 of the paper, channel by channel."""

import torch

_TINY = 1e-30


def solve_scalars(
    rows: torch.Tensor, shift: torch.Tensor, new_rows: torch.Tensor, new_shift: torch.Tensor, *, lambda1: float, lambda2: float, clamp: bool
) -> torch.Tensor:
    """c (channels,) in float64: the minimiser of |c x' - x|^2 + lambda1 (c y' - y)^2 + lambda2 c^2.

    rows x and new_rows x' (channels, d): filters times the gain of their batch norm, before and after quantization; shift y and
    new_shift y' (channels,): what the batch norm adds. 1 where the quantized channel is zero and nothing can be solved.
    """
    top = (new_rows * rows).sum(1) + lambda1 * new_shift * shift
    bottom = (new_rows**2).sum(1) + lambda1 * new_shift**2 + lambda2
    found = torch.where(bottom > _TINY, top / bottom.clamp(min=_TINY), torch.ones_like(top))
    return found.clamp(min=0) if clamp else found
