"""How the pixels under a filter are correlated: less with the distance, and zeros beyond the
border."""

import math
from dataclasses import dataclass

import torch
from torch import nn

from subpc.algorithms.statistics.normal_channels import PRECISION
from subpc.algorithms.statistics.padded import zeros_beside

_TINY = 1e-12
# What is tried: correlation of neighbours, and sides of the plane in pixels.
_CORRELATIONS = (0.0, 0.05, 0.2, 0.35, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
_UNKNOWN = 0.5
_SIDES = (math.inf, 112.0, 56.0, 28.0, 14.0, 10.0, 7.0, 5.0, 4.0, 3.0, 2.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Taps:
    """Second moments of a filter's taps relative to those of one pixel, (taps, taps).

    Values at taps s, t of channels i, j have the covariance C_ij together[s, t] + m_i m_j border[s,
    t] for the channels' covariance C and means m; inside (taps,): share of the filter's places
    where the tap is not beyond the border.
    """

    together: torch.Tensor
    border: torch.Tensor
    inside: torch.Tensor

    def times(
        self, rows: torch.Tensor, covariance: torch.Tensor, means: tuple[torch.Tensor, torch.Tensor]
    ) -> torch.Tensor:
        """rows (out, c, taps) times the covariance of all values under a filter, (out, c' taps),
        never formed."""
        mixed = (rows.mT @ covariance).mT @ self.together  # (out, c', taps)
        along = torch.einsum("oct,c,ts->os", rows, means[0], self.border)
        return (mixed + means[1][:, None] * along[:, None]).flatten(1)

    def dense(
        self, covariance: torch.Tensor, means: tuple[torch.Tensor, torch.Tensor]
    ) -> torch.Tensor:
        """The covariance of all values under a filter, (c taps, c' taps)."""
        result = torch.kron(covariance.contiguous(), self.together)
        return (
            result.add_(torch.kron(torch.outer(*means), self.border))
            if bool(self.border.any())
            else result
        )

    def mean(self, means: torch.Tensor) -> torch.Tensor:
        """(c,) to (c taps,)."""
        return torch.outer(means, self.inside).flatten()


def one_tap(count: int = 1) -> Taps:
    """`count` independent pixels, and no border."""
    eye = torch.eye(count, dtype=PRECISION)
    return Taps(
        together=eye, border=torch.zeros_like(eye), inside=torch.ones(count, dtype=PRECISION)
    )


def make_taps(conv: nn.Conv2d, correlation: float, side: float) -> Taps:
    """Pixels at distance d (the sum of both directions) have the correlation r^d, and the plane has
    side x side of them."""
    steps = [
        torch.arange(k, dtype=PRECISION) * d
        for k, d in zip(conv.kernel_size, conv.dilation, strict=True)
    ]
    near = [correlation ** (s[:, None] - s).abs() for s in steps]
    share = torch.kron(
        *(
            _both_inside(s - p, side if p else math.inf)
            for s, p in zip(steps, zeros_beside(conv), strict=True)
        )
    )
    inside = share.diagonal()
    return Taps(
        together=torch.kron(*near) * share,
        border=share - torch.outer(inside, inside),
        inside=inside,
    )


def _both_inside(offsets: torch.Tensor, side: float) -> torch.Tensor:
    """Share of the places on a line of `side` pixels at which two offsets both stay on it."""
    low = torch.minimum(offsets.clamp(max=0)[:, None], offsets.clamp(max=0))
    high = torch.maximum(offsets.clamp(min=0)[:, None], offsets.clamp(min=0))
    return (1 - (high - low) / side).clamp(min=0)


def fit_taps(
    conv: nn.Conv2d,
    across: torch.Tensor,
    within: torch.Tensor,
    wanted: tuple[torch.Tensor, torch.Tensor] | None,
) -> tuple[Taps, float]:
    """The taps that explain the statistics of the batch norm behind the layer best, and their
    correlation.

    across (out, taps): mean of each tap of each filter; within (out, taps, taps): covariances of
    the taps if all saw the same pixel; wanted: mean and variance (out,) of the layer without its
    offset. The side of the plane follows from the means, because only it decides what share of each
    tap is lost at the border; the correlation then follows from the variances, up to a common
    factor. Without statistics: 0.5, and no border.
    """
    if across.shape[1] == 1:
        return one_tap(), _UNKNOWN
    if wanted is None:
        return make_taps(conv, _UNKNOWN, math.inf), _UNKNOWN
    middle, variance = wanted[0], wanted[1].clamp(min=_TINY)

    def miss_mean(side: float) -> float:
        return round(
            float(((across @ make_taps(conv, 0.0, side).inside - middle) ** 2 / variance).mean()), 4
        )

    def miss_variance(correlation: float) -> float:
        taps = make_taps(conv, correlation, side)
        found = (within * taps.together).sum((1, 2)) + torch.einsum(
            "ot,ts,os->o", across, taps.border, across
        )
        return float((found.clamp(min=_TINY) / variance).log().std(correction=0))

    side = min(_SIDES, key=miss_mean)
    correlation = min(_CORRELATIONS, key=miss_variance)
    return make_taps(conv, correlation, side), correlation
