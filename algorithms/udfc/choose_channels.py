"""Which channels stay."""

import torch

from subpc.errors import ConfigError


def count_kept(channels: int, ratio: float) -> int:
    """How many stay; ConfigError where none would."""
    count = round(channels * (1 - ratio))
    if count < 1:
        raise ConfigError(f"ratio {ratio} leaves no channel of {channels}; choose a smaller one.")
    return count


def filter_norms(weight: torch.Tensor, criterion: str) -> torch.Tensor:
    """(c,) in float64: the l2 norm of each filter (c, ...), l1 where `criterion` says so."""
    rows = weight.detach().double().flatten(1)
    norms: torch.Tensor = torch.linalg.vector_norm(rows, 1 if criterion == "l1" else 2, 1)
    return norms


def choose_kept(weight: torch.Tensor, ratio: float, criterion: str) -> torch.Tensor:
    """(c,) bool: all but the `ratio` of filters (c, d) of the smallest norm, l2 unless criterion is
    `l1`."""
    count = count_kept(len(weight), ratio)
    order = filter_norms(weight, criterion).argsort(descending=True, stable=True)
    kept = torch.zeros(len(weight), dtype=torch.bool)
    kept[order[:count]] = True
    return kept
