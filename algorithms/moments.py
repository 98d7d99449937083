"""Second moments of what a layer sees, in a network and in its changed copy."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

# Longest filter, in values, whose taps are taken together: that of 3x3 taps over 128 channels. The moments of longer ones cost the
# square of the length in memory and its cube in time, so that each tap is taken as a filter of its own there, over channels alone.
LONGEST = 1152
# Longest filter without taps.
WIDEST = 4608


@dataclass(frozen=True, kw_only=True)
class Moments:
    """For each group of a layer's inputs, in float64: covariance (groups, d, d) of what the changed layer sees, cross (groups, d', d)
    between what the layer saw before and what it sees now; d values under a filter, in the order of its weights.

    taps: 1, or the number of a filter's taps that are filters of their own here, of d = channels.
    """

    covariance: torch.Tensor
    cross: torch.Tensor
    taps: int = 1


# Moments on demand, and None where a filter is too long for them.
Inputs = Callable[[], Moments | None]
# Called with a layer's name and inputs before the layer runs; may change the layer in the changed network, and its batch norm is
# followed up. Returns which input channels the layer still takes, None for all.
AtLayer = Callable[[str, Inputs], torch.Tensor | None]
# Called with the name of a batch norm of the changed network once its statistics are those of the changed network.
AtNorm = Callable[[str], None]


def groups_of(layer: nn.Module) -> int:
    """How many groups of inputs the layer has."""
    return layer.groups if isinstance(layer, nn.Conv2d) else 1


def grouped_rows(layer: nn.Module, taps: int = 1) -> torch.Tensor:
    """The layer's weight as (groups, filters taps, d) in float64; taps as in Moments."""
    weight = layer.weight
    assert isinstance(weight, torch.Tensor)
    rows = weight.detach().double().reshape(groups_of(layer), -1, weight[0].numel() // taps, taps)
    return rows.mT.flatten(1, 2)


def whole_filters(rows: torch.Tensor, taps: int) -> torch.Tensor:
    """(groups, filters taps, d) as (filters, d taps), in the order of the weights."""
    return rows.reshape(-1, taps, rows.shape[-1]).mT.flatten(1)


def sample_moments(layer: nn.Module, before: torch.Tensor, now: torch.Tensor, limit: int) -> Moments | None:
    """From samples of both inputs, the same pictures in the same order; `limit` places at most. Means are taken out."""
    groups, length = groups_of(layer), layer.weight[0].numel()  # type: ignore[index]
    taps = layer.weight[0, 0].numel() if isinstance(layer, nn.Conv2d) and length > LONGEST else 1
    if length // taps > WIDEST:
        return None
    one, two = (patches(x, layer if taps == 1 else None, limit, groups) for x in (before, now))
    one, two = (x - x.mean(0) for x in (one, two))
    covariance, cross = (torch.einsum("pgd,pge->gde", a, two).double() / len(two) for a in (two, one))
    return Moments(covariance=covariance, cross=cross, taps=taps)


def patches(x: torch.Tensor, layer: nn.Module | None, limit: int, groups: int = 1) -> torch.Tensor:
    """(places, groups, d): what a filter sees, at evenly spread places of each picture, `limit` at most in all.

    None as layer: each pixel by itself.
    """
    if x.dim() != 4:
        return x.reshape(-1, 1, x.shape[-1])
    if not isinstance(layer, nn.Conv2d):
        layer = nn.Conv2d(x.shape[1], 1, 1)
    found = []
    padding = (
        layer.padding
        if isinstance(layer.padding, tuple)
        else tuple(d * (k - 1) // 2 for k, d in zip(layer.kernel_size, layer.dilation, strict=True))
    )
    for picture in x[:, None]:
        columns = F.unfold(picture, layer.kernel_size, layer.dilation, padding, layer.stride)[0]
        step = max(1, columns.shape[1] * len(x) // limit)
        found.append(columns[:, ::step].T)
    rows = torch.cat(found)
    return rows.view(len(rows), groups, -1)
