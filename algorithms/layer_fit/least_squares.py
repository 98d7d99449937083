"""Weights solved anew: least squares on the outputs of the unchanged layer, in closed form, some
weights being zero."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from subpc.algorithms.numerics.cholesky import solve_in_place, steady_cholesky
from subpc.algorithms.statistics.moments import Moments, grouped_rows, whole_filters

_TINY = 1e-12
# Rows whose error is counted at a time.
_TOGETHER = 512


@dataclass(frozen=True, kw_only=True)
class Problem:
    """min over W' of tr((W' - best) A (W' - best)^T): the error of a layer's output, as a quadratic
    form of its weights.

    best (groups, filters, d): minimum without a restriction; curvature A (groups, d, d): covariance
    of the layer's inputs in the changed network, plus the ridge. Both in float64. taps as in
    Moments: a filter is that many rows of `best`. kept: the block mask (out / n, in) and n of a
    layer of one group whose other blocks are zero and stay it.
    """

    best: torch.Tensor
    curvature: torch.Tensor
    taps: int = 1
    kept: tuple[torch.Tensor, int] | None = None

    def weights(self, rows: torch.Tensor | None = None) -> torch.Tensor:
        """Rows of this problem, its best ones unless given, as (filters, weights of a filter) in
        the layer's order."""
        return whole_filters(self.best if rows is None else rows, self.taps)

    def relative_error(self, weights: torch.Tensor) -> float:
        """Deviation that `weights` (groups, filters, d) leave, as a share of what the layer gives
        without any."""
        lost = all_of_it = 0.0
        for i in range(0, weights.shape[1], _TOGETHER):
            best = self.best[:, i : i + _TOGETHER]
            lost += self._power(weights[:, i : i + _TOGETHER] - best)
            all_of_it += self._power(best)
        return math.sqrt(max(lost, 0.0) / max(all_of_it, _TINY))

    def power(self) -> float:
        """What the layer gives with its best weights, in the mean square, all groups together."""
        return self._power(self.best)

    def _power(self, rows: torch.Tensor) -> float:
        """What these rows give in the mean square, all groups together."""
        return float((rows @ self.curvature).mul_(rows).sum())


def layer_problem(layer: nn.Module, moments: Moments, ridge: float) -> Problem:
    """The problem of a layer whose weight (out, ...) is unchanged, with these moments of its inputs
    before and now.

    Least squares of W' now on W before, both without their means, which the next batch norm or the
    offset takes. The ridge, a share of the mean diagonal, draws W' to W. The moments' memory is
    written over.
    """
    curvature = moments.covariance
    diagonal = curvature.diagonal(dim1=1, dim2=2)
    strength = ridge * diagonal.mean(1) + _TINY
    diagonal.add_(strength[:, None])
    wanted = moments.answers.addcmul_(grouped_rows(layer, moments.taps), strength[:, None, None])
    best = solve_in_place(steady_cholesky(curvature), wanted.mT).mT
    return Problem(best=best.contiguous(), curvature=curvature, taps=moments.taps)


def solve(problem: Problem, mask: torch.Tensor, n: int) -> torch.Tensor:
    """The minimiser (out taps, d) of a layer of one group whose blocks outside mask (out / n, in)
    are zero."""
    best, curvature = problem.best[0], problem.curvature[0]
    result, wanted = torch.zeros_like(best), best @ curvature
    for filters, columns in kept_weights(problem, mask, n):
        factor = steady_cholesky(curvature[columns][:, columns])
        result[filters, columns] = solve_in_place(factor, wanted[filters][:, columns].T).T
    return result


def kept_weights(
    problem: Problem, mask: torch.Tensor, n: int
) -> Iterator[tuple[slice, torch.Tensor]]:
    """For each n filters the rows of `best` that they are, and the columns that mask (out / n, in)
    keeps."""
    rows, width = n * problem.taps, problem.best.shape[2] // mask.shape[1]
    for group, kept in enumerate(mask):
        columns = kept.repeat_interleave(width).nonzero()[:, 0]
        yield slice(group * rows, group * rows + rows), columns


def eliminate(problem: Problem, channels: int, n: int, count: int, rounds: int) -> torch.Tensor:
    """Mask (out / n, channels) without `count` blocks a group: those whose loss, the other weights
    solved anew, is the least.

    Optimal brain surgeon over blocks (Hassibi and Stork 1993, equation 5): removing block i costs
    tr(W_i (H_ii)^-1 W_i^T) for H = A^-1. `rounds` batches of blocks go one after the other, with
    weights and H brought up to date between them.
    """
    best, curvature, n = problem.best[0], problem.curvature[0], n * problem.taps
    inverse = torch.cholesky_inverse(steady_cholesky(curvature))
    mask = torch.ones(best.shape[0] // n, channels, dtype=torch.bool)
    taps = best.shape[1] // channels
    for group in range(len(mask)):
        weights, h = (
            best[group * n : group * n + n].clone(),
            inverse.clone() if rounds > 1 else inverse,
        )
        for done in range(min(rounds, count)):
            share = count * (done + 1) // min(rounds, count) - count * done // min(rounds, count)
            costs = removal_costs(weights, h, taps).masked_fill(~mask[group], torch.inf)
            gone = costs.argsort(stable=True)[:share]
            mask[group, gone] = False
            if done + 1 < min(rounds, count):
                remove_blocks(weights, h, gone, taps)
    return mask


def removal_costs(weights: torch.Tensor, h: torch.Tensor, taps: int) -> torch.Tensor:
    """(in,): the loss of removing each block, for weights (n, in * taps) and the inverse h of their
    curvature; see eliminate."""
    channels = h.shape[0] // taps
    index = torch.arange(channels)
    own = h.view(channels, taps, channels, taps)[index, :, index]  # (in, taps, taps)
    blocks = weights.view(-1, channels, taps).permute(1, 2, 0)  # (in, taps, n)
    costs: torch.Tensor = torch.linalg.solve(own, blocks).mul_(blocks).sum((1, 2))
    return costs


def remove_blocks(weights: torch.Tensor, h: torch.Tensor, gone: torch.Tensor, taps: int) -> None:
    """Take blocks out of the weights and out of the inverse of their curvature, in place."""
    index = (gone[:, None] * taps + torch.arange(taps)).flatten()
    across = torch.linalg.solve(h[index][:, index], h[index])  # (removed, in * taps)
    weights.addmm_(weights[:, index], across, alpha=-1)
    h.addmm_(h[:, index], across, alpha=-1)
    h[index], h[:, index] = 0, 0
    h[index, index] = 1
