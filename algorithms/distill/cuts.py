"""Cuts of images: the same few images, never twice the same."""

import math

import torch
import torch.nn.functional as F

# How much wider than high a cut may be, and the other way round.
_STRETCH = 4 / 3


def cuts(
    images: torch.Tensor,
    chosen: torch.Tensor,
    draw: torch.Generator,
    *,
    smallest: float,
    mirror: bool,
) -> torch.Tensor:
    """(b, c, h, w): of each image images[chosen] (p, c, h, w) a part, enlarged to the whole size.

    smallest: the least share of the pixels that a part has, in (0, 1]; its sides differ by a third
    at most. mirror: whether half of them are mirrored. The draws are those of `draw` alone.
    """
    batch = len(chosen)
    share = smallest + (1 - smallest) * torch.rand(batch, generator=draw)
    stretch = torch.exp((2 * torch.rand(batch, generator=draw) - 1) * math.log(_STRETCH))
    sides = torch.stack([share * stretch, share / stretch], 1).sqrt().clamp(max=1)
    middles = (2 * torch.rand(batch, 2, generator=draw) - 1) * (1 - sides)
    mirrored = torch.rand(batch, generator=draw) < 0.5
    sign = torch.where(mirrored & mirror, -1.0, 1.0)
    where = torch.zeros(batch, 2, 3)
    where[:, 0, 0], where[:, 1, 1], where[:, :, 2] = sides[:, 0] * sign, sides[:, 1], middles
    size = [batch, *images.shape[1:]]
    grid = F.affine_grid(where, size, align_corners=False)
    return F.grid_sample(images[chosen], grid, padding_mode="reflection", align_corners=False)
