"""Normal variables through a function of one value: means and covariances, without samples, by
Hermite series."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

_TINY = 1e-12
# Points in units of the deviation that an expectation is summed over, and terms of the series.
_REACH, _POINTS, _TERMS = 6.0, 241, 8
Function = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Series:
    """f(x) for normal x, channel by channel: mean (c,), a_n for n = 1.. (c, terms), and the
    deviation of x (c,).

    f(x) = mean + sum over n of a_n h_n((x - E x) / deviation), h_n the normalised Hermite
    polynomials; `rest` (c,) is the root of the variance that the terms kept here leave out.
    """

    mean: torch.Tensor
    terms: torch.Tensor
    rest: torch.Tensor
    deviation: torch.Tensor

    @property
    def slope(self) -> torch.Tensor:
        """E f'(x), (c,): the covariance of f(x) with anything jointly normal is slope times that of
        x (Stein's lemma)."""
        return self.terms[:, 0] / self.deviation


def expand(function: Function, mean: torch.Tensor, variance: torch.Tensor) -> Series:
    """The series of `function` for normal inputs of this mean and variance, (c,) each."""
    z = torch.linspace(-_REACH, _REACH, _POINTS, dtype=mean.dtype)
    weight = torch.exp(-(z**2) / 2)
    weight = weight / weight.sum()
    deviation = variance.clamp(min=_TINY).sqrt()
    values = function(mean[:, None] + deviation[:, None] * z)
    middle = values @ weight
    terms = values @ (_polynomials(z) * weight).T
    power = (values - middle[:, None]) ** 2 @ weight
    return Series(
        mean=middle,
        terms=terms,
        rest=(power - (terms**2).sum(1)).clamp(min=0).sqrt(),
        deviation=deviation,
    )


def _polynomials(z: torch.Tensor) -> torch.Tensor:
    """h_1 to h_TERMS at z, (terms, points), each of variance 1 under the normal law."""
    found = [torch.ones_like(z), z]
    for n in range(1, _TERMS):
        found.append(z * found[-1] - n * found[-2])
    return torch.stack([h / math.sqrt(math.factorial(n)) for n, h in enumerate(found)][1:])


def covariance_behind(first: Series, second: Series, covariance: torch.Tensor) -> torch.Tensor:
    """Covariance (a, b) of f(x) and g(y) for jointly normal x and y of the covariance (a, b): sum
    over n of a_n b_n rho^n.

    What the series leaves out goes with rho to the power behind the last one: exact where x and y
    are the same, and the result stays positive semidefinite.
    """
    rho = (covariance / first.deviation[:, None] / second.deviation).clamp(-1, 1)
    power, result = rho.clone(), torch.zeros_like(covariance)
    for left, right in zip(first.terms.T, second.terms.T, strict=True):
        result += torch.outer(left, right) * power
        power *= rho
    return result.addcmul_(torch.outer(first.rest, second.rest), power)


def rectified_covariance(
    rows: torch.Tensor, gamma: torch.Tensor, beta: torch.Tensor
) -> torch.Tensor:
    """Covariance (c, c) of relu(y) for y normal with mean `beta`, deviation |`gamma`| and the
    correlations of `rows` (c, d)."""
    unit = torch.nn.functional.normalize(rows, dim=1)
    series = expand(torch.relu, beta, gamma**2)
    return covariance_behind(
        series, series, series.deviation[:, None] * (unit @ unit.T) * series.deviation
    )


def regression(covariance: torch.Tensor, kept: torch.Tensor, ridge: float) -> torch.Tensor:
    """Coefficients (kept, removed) of the best linear estimate of the removed channels from the
    kept ones."""
    inner = covariance[kept][:, kept].clone()
    inner.diagonal().add_(ridge * inner.diagonal().mean() + _TINY)
    return torch.cholesky_solve(covariance[kept][:, ~kept], torch.linalg.cholesky(inner))
