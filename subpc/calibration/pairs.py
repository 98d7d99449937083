"""Int8 codes of float weights for CPUs whose instruction for bytes adds two products in 16 bits."""

import torch
from torch import Tensor

from subpc.calibration.weights import LARGEST
from subpc.passes.pack_quads import taps_are_channels
from subpc.schedules.quad_sums import LARGEST_NARROW

# Scales that are tried, as shares of the one that reaches the largest weight, and then of the best
# of these. At twice that scale no two codes are too large together.
_SHARES, _NEAR = torch.linspace(0.6, 2.0, 15), torch.linspace(0.94, 1.06, 7)
_SMALLEST_SCALE = 1e-30
# Weights that are looked at together: few enough to stay in the second cache.
_TOGETHER = 1 << 16


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
    filters = max(1, _TOGETHER // max(1, pairs[:, 0].numel()))
    parts = [_best(part.contiguous()) for part in torch.split(pairs, filters, dim=1)]
    rounded = torch.cat([codes for codes, _ in parts], 1)
    ordered = rounded.permute(1, 2, 0, 3).flatten(1, 2)[:, : rows.shape[1]]
    codes = torch.empty_like(ordered).scatter_(1, place.expand_as(ordered), ordered)
    scales = torch.cat([scale for _, scale in parts], 1)
    return codes.to(torch.int8).reshape(weight.shape), scales.flatten()


def _paired(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Of rows (out, in, taps): (2, out, pairs, taps), the channels that each filter reads, in
    order, before the others; and which channels they are (out, in, 1). A channel too few makes a
    pair with zeros."""
    unused = (rows == 0).all(2).int()
    place = unused.argsort(dim=1, stable=True).unsqueeze(2)
    ordered = rows.gather(1, place.expand_as(rows))
    padded = torch.nn.functional.pad(ordered, (0, 0, 0, rows.shape[1] % 2))
    return padded.reshape(len(padded), -1, 2, padded.shape[2]).permute(2, 0, 1, 3), place


def _best(pairs: Tensor) -> tuple[Tensor, Tensor]:
    """Codes (2, out, pairs, taps) and scales (1, out, 1, 1) of some filters."""
    inside = (0, 2, 3)
    top = pairs.abs().amax(inside, keepdim=True).clamp(min=_SMALLEST_SCALE) / LARGEST
    best, least = top, torch.full_like(top, torch.inf)
    for shares in (_SHARES, _NEAR):
        middle = best
        for share in shares:
            scale = middle * share
            lost = _rounded(pairs / scale).mul_(scale).sub_(pairs).square_()
            errors = lost.sum(inside, keepdim=True)
            best = torch.where(errors <= least, scale, best)
            least = torch.minimum(errors, least)
    return _rounded(pairs / best), best


def _rounded(real: Tensor) -> Tensor:
    """Codes of two that meet (2, ...): what they are too large together each gives half of."""
    codes = real.round_().clamp_(-LARGEST, LARGEST)
    together = codes[0] + codes[1]
    excess = together - together.clamp(-LARGEST_NARROW, LARGEST_NARROW)
    half = (excess / 2).round_()
    codes[0] -= half
    codes[1] -= excess.sub_(half)
    return codes
