"""Coefficients that express a removed channel by kept ones: UDFC's closed form and Neuron
Merging."""

import torch
import torch.nn.functional as F

# Neuron Merging: weight of the cosine distance against the bias distance, and the least similarity
# that is merged.
_COSINE_SHARE, _MIN_COSINE = 0.85, 0.1
_TINY = 1e-12


def solve_coefficients(
    weight: torch.Tensor,
    gain: torch.Tensor,
    shift: torch.Tensor,
    kept: torch.Tensor,
    *,
    alpha1: float,
    ridge: float,
) -> torch.Tensor:
    """UDFC equation 20, every removed channel j by all kept ones i: (kept, removed) in float64.

    weight (c, d), gain g and shift k (c,), kept (c,) bool. Multiplied by g_j^2, so that nothing is
    divided by gamma: s = (G G^T + alpha1 g_j^2 p p^T + ridge)^-1 (g_j G w_j + alpha1 g_j^2 k_j p)
    with rows G_i = g_i w_i and p = k of the kept. The rank-one term differs from channel to channel
    and goes in by Sherman-Morrison.
    """
    rows, shifts = (gain[:, None] * weight)[kept], shift[kept]
    gone, strength = (gain[:, None] * weight)[~kept], alpha1 * gain[~kept] ** 2
    gram = rows @ rows.T
    gram.diagonal().add_(ridge * gram.diagonal().mean() + _TINY)
    factor = torch.linalg.cholesky(gram)
    right = rows @ gone.T + shifts[:, None] * (strength * shift[~kept])
    solved = torch.cholesky_solve(right, factor)
    along = torch.cholesky_solve(shifts[:, None], factor)[:, 0]
    reduced = strength * (shifts @ solved) / (1 + strength * (shifts @ along))
    return solved - along[:, None] * reduced


def merge_coefficients(
    weight: torch.Tensor, gain: torch.Tensor, shift: torch.Tensor, kept: torch.Tensor
) -> torch.Tensor:
    """Neuron Merging: each removed channel j by the one nearest kept channel, (kept, removed) in
    float64.

    The multiplier is |w_j| / |w_i| * g_j / g_i, for which BN(z_j) = s BN(z_i) + constant where the
    filters are parallel.
    """
    cosine = (
        F.normalize(weight[~kept], dim=1) @ F.normalize(weight[kept], dim=1).T
    )  # (removed, kept)
    length = weight.norm(dim=1)
    ratio = length[~kept, None] / length[kept].clamp(min=_TINY)
    safe = torch.where(gain[kept].abs() < _TINY, torch.full_like(gain[kept], _TINY), gain[kept])
    scale = ratio * gain[~kept, None] / safe
    bias = (shift[~kept, None] - scale * shift[kept]).abs()
    low, high = bias.amin(1, keepdim=True), bias.amax(1, keepdim=True)
    distance = _COSINE_SHARE * (1 - cosine) + (1 - _COSINE_SHARE) * (bias - low) / (
        high - low
    ).clamp(min=_TINY)
    nearest = distance.argmin(1, keepdim=True)
    merged = scale.gather(1, nearest) * (cosine.gather(1, nearest) >= _MIN_COSINE)
    return torch.zeros_like(scale).scatter(1, nearest, merged).T


def quantization_scale(
    weight: torch.Tensor,
    quantized: torch.Tensor,
    gain: torch.Tensor,
    shift: torch.Tensor,
    alpha2: float,
) -> torch.Tensor:
    """The minimiser of UDFC's equation 14 for each filter, (c,): the printed equation 21 has equal
    numerator and denominator."""
    inner, power = (weight * quantized).sum(1), (quantized**2).sum(1)
    bottom = gain**2 * power + alpha2 * shift**2
    scale = (gain**2 * inner + alpha2 * shift**2) / bottom.clamp(min=_TINY)
    return torch.where(bottom > _TINY, scale.clamp(min=0), torch.ones_like(scale))
