"""Second moments of what a layer sees, in a network and in its changed copy."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

# Longest filter whose moments are formed: 4608 is the longest in a ResNet-50, and 4608^2 numbers of 8 bytes are 170 MB.
LONGEST = 4608


@dataclass(frozen=True, kw_only=True)
class Moments:
    """For each group of a layer's inputs, in float64: covariance (groups, d, d) of what the changed layer sees, cross (groups, d', d)
    between what the layer saw before and what it sees now; d values under a filter, in the order of its weights."""

    covariance: torch.Tensor
    cross: torch.Tensor


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


def grouped_rows(layer: nn.Module) -> torch.Tensor:
    """The layer's weight as (groups, filters, d) in float64."""
    weight = layer.weight
    assert isinstance(weight, torch.Tensor)
    return weight.detach().double().reshape(groups_of(layer), -1, weight[0].numel())


def sample_moments(layer: nn.Module, before: torch.Tensor, now: torch.Tensor, limit: int) -> Moments | None:
    """From samples of both inputs, the same pictures in the same order; `limit` places at most. Means are taken out."""
    groups = groups_of(layer)
    if layer.weight[0].numel() > LONGEST:  # type: ignore[index]
        return None
    one, two = (patches(x, layer, limit, groups) for x in (before, now))
    one, two = (x - x.mean(0) for x in (one, two))
    covariance, cross = (torch.einsum("pgd,pge->gde", a, two).double() / len(two) for a in (two, one))
    return Moments(covariance=covariance, cross=cross)


def patches(x: torch.Tensor, layer: nn.Module, limit: int, groups: int = 1) -> torch.Tensor:
    """(places, groups, d): what a filter sees, at evenly spread places of each picture, `limit` at most in all."""
    if not isinstance(layer, nn.Conv2d):
        return x.reshape(-1, 1, x.shape[-1])
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
