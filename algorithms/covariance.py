"""Covariance of channels behind a ReLU without data: normal inputs, correlated as the filters are."""

import math

import torch

_TINY = 1e-12


def rectified_covariance(rows: torch.Tensor, gamma: torch.Tensor, beta: torch.Tensor) -> torch.Tensor:
    """Covariance (c, c) of relu(y) for y normal with mean `beta`, deviation |`gamma`| and the correlations of `rows` (c, d).

    rows: filters times their gain, weighted with the deviation of each input. The ReLU of a correlated pair follows from its
    Hermite series: cov = sum over n of a_n b_n rho^n, where a_1 = |gamma| Phi(z), a_2 = |gamma| phi(z) / sqrt(2),
    a_3 = -|gamma| z phi(z) / sqrt(6) for z = beta / |gamma|; the diagonal is exact.
    """
    deviation = gamma.abs().clamp(min=_TINY)
    z = beta / deviation
    unit = torch.nn.functional.normalize(rows, dim=1)
    rho = unit @ unit.T
    density = torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    below = torch.special.ndtr(z)
    series = (deviation * below, deviation * density / math.sqrt(2), -deviation * z * density / math.sqrt(6))
    total = sum((torch.outer(a, a) * rho ** (n + 1) for n, a in enumerate(series)), torch.zeros_like(rho))
    first = beta * below + deviation * density
    second = (beta**2 + deviation**2) * below + beta * deviation * density
    total.diagonal().copy_((second - first**2).clamp(min=_TINY))
    return total


def regression(covariance: torch.Tensor, kept: torch.Tensor, ridge: float) -> torch.Tensor:
    """Coefficients (kept, removed) of the best linear estimate of the removed channels from the kept ones."""
    inner = covariance[kept][:, kept].clone()
    inner.diagonal().add_(ridge * inner.diagonal().mean() + _TINY)
    return torch.cholesky_solve(covariance[kept][:, ~kept], torch.linalg.cholesky(inner))
