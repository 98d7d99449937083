"""Images in the place of those that nobody gave."""

import torch
from torch import Tensor

from subpc.algorithms.images.random_images import random_shapes, smooth_noise

# Of each kind.
COUNT = 16


def stand_ins(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Random inputs (p, ...) for a network with the input `shape` (n, ...), p a multiple of n:
    shapes and noise where it is an image, else normal numbers."""
    batch = shape[0]
    count = -(-COUNT // batch) * batch
    draw = torch.Generator().manual_seed(seed)
    if len(shape) != 4:
        return torch.randn(2 * count, *shape[1:], generator=draw)
    _, channels, height, width = shape
    side = max(height, width)
    images = torch.cat(
        [random_shapes(count, channels, side, seed), smooth_noise(count, channels, side, draw)]
    )
    return images[:, :, :height, :width].contiguous()
