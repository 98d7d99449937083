"""Kept weights solved anew: least squares on what the layer gave before, in closed form."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

_TINY = 1e-12


@dataclass(frozen=True, kw_only=True)
class Problem:
    """min over W' of tr((W' - best) A (W' - best)^T): the error of a layer's output, as a quadratic form of its weights.

    best (out, in * taps): minimum without the restriction to kept blocks; curvature A (in * taps, in * taps): covariance of the
    inputs that the layer sees now, plus the ridge. Both in float64.
    """

    best: torch.Tensor
    curvature: torch.Tensor
    taps: int

    def relative_error(self, weights: torch.Tensor) -> float:
        """Deviation that `weights` (out, in * taps) leave, as a share of what the layer gives without any."""
        lost, all_of_it = (float((rows @ self.curvature * rows).sum()) for rows in (weights - self.best, self.best))
        return (lost / max(all_of_it, _TINY)) ** 0.5


def patches(x: torch.Tensor, conv: nn.Conv2d, limit: int) -> torch.Tensor:
    """(positions, in * taps): what a filter sees, at evenly spread places of each picture, `limit` at most in all."""
    found = []
    for picture in x.split(1):
        columns = F.unfold(picture, conv.kernel_size, conv.dilation, conv.padding, conv.stride)[0]  # type: ignore[arg-type]
        step = max(1, columns.shape[1] * len(x) // limit)
        found.append(columns[:, ::step].T)
    return torch.cat(found)


def pose(weight: torch.Tensor, before: torch.Tensor, now: torch.Tensor, ridge: float) -> Problem:
    """The problem of weight (out, in, kh, kw) whose patches were `before` and are `now`, (positions, in * taps) each.

    Least squares of W' now on W before, both without their means, which the next batch norm or the offset takes. The ridge, a share
    of the mean diagonal, draws W' to W.
    """
    rows = weight.double().flatten(1)
    before, now = (x - x.mean(0) for x in (before, now))
    covariance = (now.T @ now).double() / len(now)
    cross = (before.T @ now).double() / len(now)
    strength = ridge * covariance.diagonal().mean() + _TINY
    covariance.diagonal().add_(strength)
    best = torch.linalg.solve(covariance, (rows @ cross + strength * rows).T).T
    return Problem(best=best, curvature=covariance, taps=weight.shape[2] * weight.shape[3])


def solve(problem: Problem, mask: torch.Tensor, n: int) -> torch.Tensor:
    """The minimiser (out, in * taps) whose blocks outside mask (groups, in) are zero."""
    result = torch.zeros_like(problem.best)
    wanted = problem.best @ problem.curvature
    for group, row in enumerate(mask):
        kept = row.repeat_interleave(problem.taps).nonzero()[:, 0]
        factor = torch.linalg.cholesky(problem.curvature[kept][:, kept])
        filters = slice(group * n, group * n + n)
        part = torch.cholesky_solve(wanted[filters][:, kept].T, factor).T
        result[filters, kept] = part
    return result


def eliminate(problem: Problem, n: int, count: int, rounds: int) -> torch.Tensor:
    """Mask (groups, in) without `count` blocks a group: those whose loss, the other weights solved anew, is the least.

    Optimal brain surgeon over blocks (Hassibi and Stork 1993, equation 5): removing block i costs tr(W_i (H_ii)^-1 W_i^T) for
    H = A^-1. `rounds` batches of blocks go one after the other, with weights and H brought up to date between them.
    """
    inverse = torch.linalg.inv(problem.curvature)
    groups, channels = problem.best.shape[0] // n, inverse.shape[0] // problem.taps
    mask = torch.ones(groups, channels, dtype=torch.bool)
    for group in range(groups):
        weights, h = problem.best[group * n : group * n + n].clone(), inverse.clone()
        for done in range(min(rounds, count)):
            share = count * (done + 1) // min(rounds, count) - count * done // min(rounds, count)
            costs = _costs(weights, h, problem.taps).masked_fill(~mask[group], torch.inf)
            gone = costs.argsort(stable=True)[:share]
            mask[group, gone] = False
            if done + 1 < min(rounds, count):
                _remove(weights, h, gone, problem.taps)
    return mask


def _costs(weights: torch.Tensor, h: torch.Tensor, taps: int) -> torch.Tensor:
    """(in,): the loss of removing each block, for weights (n, in * taps)."""
    channels = h.shape[0] // taps
    index = torch.arange(channels)
    own = h.view(channels, taps, channels, taps)[index, :, index]  # (in, taps, taps)
    blocks = weights.view(-1, channels, taps).permute(1, 2, 0)  # (in, taps, n)
    return (torch.linalg.solve(own, blocks) * blocks).sum((1, 2))


def _remove(weights: torch.Tensor, h: torch.Tensor, gone: torch.Tensor, taps: int) -> None:
    """Take blocks out of the weights and out of H, in place."""
    index = (gone[:, None] * taps + torch.arange(taps)).flatten()
    across = torch.linalg.solve(h[index][:, index], h[index])  # (removed, in * taps)
    weights -= weights[:, index] @ across
    h -= h[:, index] @ across
    h[index], h[:, index] = 0, 0
    h[index, index] = 1
