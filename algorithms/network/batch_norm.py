"""Batch-norm algebra of the data-free methods: gain and shift, moments behind a ReLU, statistics of
a changed convolution."""

import math

import torch
from torch import nn

_TINY = 1e-12


def sigma(norm: nn.BatchNorm2d) -> torch.Tensor:
    """sqrt(running_var + eps), (c,) in float64."""
    assert norm.running_var is not None
    return (norm.running_var.detach().double() + norm.eps).sqrt()


def gamma_beta(norm: nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and offset, (c,) each in float64; 1 and 0 where the layer has none."""
    if norm.weight is None:
        return torch.ones(norm.num_features, dtype=torch.float64), torch.zeros(
            norm.num_features, dtype=torch.float64
        )
    return norm.weight.detach().double(), norm.bias.detach().double()


def mean_of(norm: nn.BatchNorm2d, conv: nn.Conv2d) -> torch.Tensor:
    """The running mean as seen by a convolution without bias, (c,) in float64."""
    assert norm.running_mean is not None
    mean = norm.running_mean.detach().double()
    return mean if conv.bias is None else mean - conv.bias.detach().double()


def gain_shift(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    """g and k of BN(conv(x)) = g z + k, where z is the convolution without its bias; (c,) each in
    float64."""
    gamma, beta = gamma_beta(norm)
    gain = gamma / sigma(norm)
    return gain, beta - gain * mean_of(norm, conv)


def move_statistics(norm: nn.BatchNorm2d, drift: torch.Tensor, ratio: torch.Tensor) -> None:
    """Add `drift` (c,) to the running mean, and multiply the running variance with its eps by
    `ratio` (c,)."""
    assert norm.running_mean is not None and norm.running_var is not None
    norm.running_mean.add_(drift)
    norm.running_var.copy_(((norm.running_var + norm.eps) * ratio - norm.eps).clamp(min=0))


def relu_moments(
    mean: torch.Tensor, variance: torch.Tensor, limit: float = math.inf
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance of clip(x, 0, limit) for a normal x, (c,) each.

    relu(x) - relu(x - limit) is the clipped value, so both moments follow from those of a shifted
    ReLU.
    """
    first, second = _rectified(mean, variance)
    if math.isfinite(limit):
        above, above_second = _rectified(mean - limit, variance)
        # clip(x)^2 = relu(x)^2 - relu(x - limit)^2 - 2 limit relu(x - limit)
        first, second = first - above, second - above_second - 2 * limit * above
    return first, (second - first**2).clamp(min=0)


def _rectified(mean: torch.Tensor, variance: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    deviation = variance.clamp(min=_TINY).sqrt()
    z = mean / deviation
    density = torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    below = torch.special.ndtr(z)
    first = mean * below + deviation * density
    return first, (mean**2 + deviation**2) * below + mean * deviation * density


def recalibrate(
    norm: nn.BatchNorm2d,
    old: torch.Tensor,
    new: torch.Tensor,
    moments: tuple[torch.Tensor, torch.Tensor] | None,
    groups: int = 1,
) -> None:
    """Set the running statistics to those of weight `new` (c_out, c_in / groups, kh, kw) where they
    were those of `old`.

    `moments`: mean and variance of each input channel, taken as independent; the variance changes
    by a ratio, in which most of the error of that assumption cancels. Without moments only the
    weights' norms and their inner product are used.
    """
    assert norm.running_mean is not None and norm.running_var is not None
    old, new = old.detach().double(), new.detach().double()
    mean, deviation = norm.running_mean.double(), sigma(norm)
    if moments is None:
        power_old, power_new = (old**2).sum((1, 2, 3)), (new**2).sum((1, 2, 3))
        shifted = mean * (old * new).sum((1, 2, 3)) / power_old.clamp(min=_TINY)
    else:
        first, second = (_per_output(m, old, groups) for m in moments)
        power_old, power_new = (
            ((old**2).sum((2, 3)) * second).sum(1),
            ((new**2).sum((2, 3)) * second).sum(1),
        )
        shifted = mean + ((new - old).sum((2, 3)) * first).sum(1)
    known = power_old > _TINY
    ratio = torch.where(known, power_new / power_old.clamp(min=_TINY), torch.ones_like(power_old))
    norm.running_mean.copy_(shifted.float())
    norm.running_var.copy_((deviation**2 * ratio - norm.eps).clamp(min=0).float())


def _per_output(values: torch.Tensor, weight: torch.Tensor, groups: int) -> torch.Tensor:
    """(c_in,) as (c_out, c_in / groups): those of each filter's input channels."""
    return values.view(groups, -1).repeat_interleave(weight.shape[0] // groups, dim=0)
