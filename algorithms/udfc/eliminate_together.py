"""Which channels go where several layers read them: those whose removal costs all readers together
the least."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from subpc.algorithms.layer_fit.least_squares import Problem, removal_costs, remove_blocks
from subpc.algorithms.numerics.cholesky import steady_cholesky

# Batches in which channels go, and the longest filter for which there is more than one.
_ROUNDS, _LONGEST = 16, 1_500


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One group of a layer's inputs.

    weights (filters, d) and the inverse (d, d) of their curvature: in float64, and written over.
    candidates (d / width,): the candidate that each block of `width` columns belongs to, -1 for
    channels that stay. share: what a unit of its error counts.
    """

    weights: torch.Tensor
    inverse: torch.Tensor
    candidates: torch.Tensor
    share: float

    @property
    def width(self) -> int:
        return self.weights.shape[1] // len(self.candidates)


def readings_of(problem: Problem, candidates: torch.Tensor) -> list[Reading]:
    """What a layer loses with each of its input channels, relative to what it gives; candidates
    (channels,) as in Reading."""
    share = 1 / max(problem.power(), torch.finfo(torch.float64).tiny)
    return [
        Reading(
            weights=best.clone(),
            inverse=torch.cholesky_inverse(steady_cholesky(curvature)),
            candidates=_runs(part),
            share=share,
        )
        for best, curvature, part in zip(
            problem.best, problem.curvature, candidates.view(len(problem.best), -1), strict=True
        )
    ]


def _runs(candidates: torch.Tensor) -> torch.Tensor:
    """One for all the neighbouring columns of a channel, where each has equally many."""
    values, counts = torch.unique_consecutive(candidates, return_counts=True)
    alike = bool((counts == counts[0]).all()) and bool((values >= 0).all())
    return values if alike else candidates


def eliminate_together(
    readings: Sequence[Reading], parts: torch.Tensor, counts: Sequence[int]
) -> torch.Tensor:
    """Mask (candidates,) without counts[p] of the candidates of each part p: those whose loss, the
    other weights solved anew, is the least in the sum over the readings.

    parts (candidates,): which part each belongs to. Optimal brain surgeon as in
    least_squares.eliminate, which this is for one reading and one part: batches go one after the
    other, with weights and inverses brought up to date between them.
    """
    kept = torch.ones(len(parts), dtype=torch.bool)
    longest = max(reading.weights.shape[1] for reading in readings)
    rounds = min(_ROUNDS if longest <= _LONGEST else 1, max(counts))
    for done in range(rounds):
        costs = _costs(readings, len(parts)).masked_fill(~kept, torch.inf)
        gone = torch.zeros_like(kept)
        for part, count in enumerate(counts):
            share = count * (done + 1) // rounds - count * done // rounds
            own = (parts == part).nonzero()[:, 0]
            gone[own[costs[own].argsort(stable=True)[:share]]] = True
        kept &= ~gone
        if done + 1 < rounds:
            for reading in readings:
                _take_out(reading, gone)
    return kept


def _costs(readings: Sequence[Reading], count: int) -> torch.Tensor:
    """(count,) in float64."""
    costs = torch.zeros(count, dtype=torch.float64)
    for reading in readings:
        there = reading.candidates >= 0
        own = removal_costs(reading.weights, reading.inverse, reading.width)
        costs.index_add_(0, reading.candidates[there], own[there], alpha=reading.share)
    return costs


def _take_out(reading: Reading, gone: torch.Tensor) -> None:
    """Take these candidates (candidates,) bool out of the reading, in place."""
    there = reading.candidates >= 0
    blocks = (there & gone[reading.candidates.clamp(min=0)]).nonzero()[:, 0]
    if len(blocks):
        remove_blocks(reading.weights, reading.inverse, blocks, reading.width)
