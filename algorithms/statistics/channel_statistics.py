"""Variance and mean of each channel of values that come part by part."""

from collections.abc import Iterator

import torch

# Variance and mean of each channel.
Statistics = tuple[torch.Tensor, torch.Tensor]


def statistics_of(parts: Iterator[torch.Tensor]) -> Statistics:
    """Variance and mean (c,) over all places of all parts (n, c, h, w), or (..., c)."""
    variances, means, counts = [], [], []
    for x in parts:
        variance, mean = torch.var_mean(
            x, (0, 2, 3) if x.dim() == 4 else tuple(range(x.dim() - 1)), correction=0
        )
        variances.append(variance.double())
        means.append(mean.double())
        counts.append(len(x))
    share = torch.tensor(counts, dtype=torch.float64)[:, None] / sum(counts)
    middle = (share * torch.stack(means)).sum(0)
    variance = (share * (torch.stack(variances) + (torch.stack(means) - middle) ** 2)).sum(0)
    return variance.float(), middle.float()
