"""Int8 codes of float weights for CPUs whose instruction for bytes adds two products in 16 bits."""

import torch
from torch import Tensor

from subpc.calibration.weights import LARGEST
from subpc.passes.pack_quads import taps_are_channels
from subpc.schedules.quad_sums import LARGEST_NARROW

# Scales that are tried, as shares of the one that reaches the largest weight. At twice that scale
# no two codes are too large together.
_SHARES = torch.linspace(0.6, 2.0, 71)
_SMALLEST_SCALE = 1e-30


def pair_codes(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Codes (out, ...) int8 and scales (out,) float32 of a weight (out, in, ...), of the scales
    tried those of the least squared error.

    Two neighbouring input channels of those that a filter reads meet (of few channels, neighbouring
    taps): codes of one sign add up to LARGEST_NARROW at most, and a scale is tried with those cut
    that do not. That loses far less than codes of half the size, since few pairs are so large:
    1.8 dB instead of 6 in MobileNetV2.
    """
    rows = weight.detach().float().flatten(2)
    if taps_are_channels(*rows.shape[1:]):
        rows = rows.reshape(len(rows), -1, 1)
    pairs, place = _paired(rows)
    top = pairs.abs().amax((1, 2, 3), keepdim=True).clamp(min=_SMALLEST_SCALE) / LARGEST
    best, least = top, torch.full_like(top, torch.inf)
    for share in _SHARES:
        scale = top * share
        errors = (_rounded(pairs / scale) * scale - pairs).square_().sum((1, 2, 3), keepdim=True)
        best = torch.where(errors <= least, scale, best)
        least = torch.minimum(errors, least)
    rounded = _rounded(pairs / best).flatten(1, 2)[:, : rows.shape[1]]
    codes = torch.empty_like(rounded).scatter_(1, place.expand_as(rounded), rounded)
    return codes.to(torch.int8).reshape(weight.shape), best.flatten()


def _paired(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Of rows (out, in, taps): (out, pairs, 2, taps), the channels that each filter reads, in
    order, before the others; and which channels they are (out, in, 1). A channel too few makes a
    pair with zeros."""
    unused = (rows == 0).all(2).int()
    place = unused.argsort(dim=1, stable=True).unsqueeze(2)
    ordered = rows.gather(1, place.expand_as(rows))
    padded = torch.nn.functional.pad(ordered, (0, 0, 0, rows.shape[1] % 2))
    return padded.unflatten(1, (-1, 2)), place


def _rounded(pairs: Tensor) -> Tensor:
    """The nearest codes (out, pairs, 2, taps) that may meet."""
    real = pairs.clamp(-LARGEST, LARGEST)
    codes = real.round()
    size = codes.abs()
    meet = codes[:, :, 0] * codes[:, :, 1] > 0
    large = meet & (size.sum(2) > LARGEST_NARROW)
    excess = (real.abs().sum(2) - LARGEST_NARROW) / 2
    first = (real[:, :, 0].abs() - excess).round()
    cut = torch.stack([first, LARGEST_NARROW - first], 2) * codes.sign()
    return torch.where(large.unsqueeze(2), cut, codes)
