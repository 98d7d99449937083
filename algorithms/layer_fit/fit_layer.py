"""One layer solved anew and quantized, from the moments of its inputs in the reference and in the
changed network."""

from dataclasses import dataclass, replace

import torch
from torch import nn

from subpc.algorithms.layer_fit.least_squares import Problem, kept_weights, layer_problem
from subpc.algorithms.layer_fit.least_squares import solve as solve_blocks
from subpc.algorithms.numerics.one_by_n import kept_blocks
from subpc.algorithms.numerics.quantizers import (
    Quantized,
    codes_of,
    quantize_with_feedback,
    search_scale,
)
from subpc.algorithms.statistics.moments import Moments, grouped_rows, groups_of, whole_filters


@dataclass(frozen=True, kw_only=True)
class Rounding:
    """How weights become codes: bits; one of the levels being zero; one scale a filter or one a
    layer; rounding errors made good by the values after them."""

    bits: int
    has_zero: bool
    per_channel: bool
    feedback: bool


# Widths from which on a level for zero costs less than 0.3 dB (0.14 dB at 6 bits).
_ZERO_FROM = 5


def zero_pays(layer: nn.Module, bits: int) -> bool:
    """Whether one of the levels of a layer's codes should be zero.

    Codes are half as large then: those of 8 bits are signed bytes, and CPUs without vpdpbusd add
    twice as many products before they widen the sums. Depthwise filters gain nothing by it and lose
    more (0.5 dB in MobileNetV2's first ones at 6 bits), for nine weights do not fill the levels.
    """
    return bits >= _ZERO_FROM and groups_of(layer) == 1


def problem_of(layer: nn.Module, moments: Moments | None, *, ridge: float, solve: bool) -> Problem:
    """The least-squares problem of a layer with weight (out, ...); without `solve`, or moments, its
    best weights are the old ones.

    1xN blocks of the weight that are zero stay zero: the others are solved for that.
    """
    assert isinstance(layer.weight, torch.Tensor)
    weight = layer.weight.detach()
    if moments is None:
        rows = weight.reshape(groups_of(layer), -1, weight[0].numel())
        return Problem(best=rows, curvature=torch.ones(len(rows), 1, 1))
    problem = layer_problem(layer, moments, ridge)
    kept = kept_blocks(weight) if groups_of(layer) == 1 else None
    problem = replace(problem, kept=kept)
    if not solve:
        return replace(problem, best=grouped_rows(layer, problem.taps))
    return problem if kept is None else replace(problem, best=solve_blocks(problem, *kept)[None])


def quantize_problem(problem: Problem, shape: torch.Size, how: Rounding) -> Quantized:
    """Codes of `shape`, that of the layer's weight (out, ...), near the problem's best weights."""
    best, taps = problem.best, problem.taps
    levels = {"has_zero": how.has_zero or problem.kept is not None}
    scale = search_scale(
        whole_filters(best, taps),
        _importance(problem),
        how.bits,
        per_channel=how.per_channel,
        **levels,
    )
    if how.feedback and problem.curvature.shape[1] == best.shape[2]:
        scales = scale.expand(shape[0], 1).repeat_interleave(taps, 0).reshape(*best.shape[:2], 1)
        best = _with_feedback(problem, scales, how.bits, **levels)
    codes = codes_of(whole_filters(best, taps), scale, how.bits, **levels).view(shape)
    return Quantized(codes=codes, scale=scale[:, 0].float(), bits=how.bits, **levels)


def _with_feedback(
    problem: Problem, scales: torch.Tensor, bits: int, *, has_zero: bool
) -> torch.Tensor:
    """The best weights (groups, filters, d) rounded with scales (groups, filters, 1); errors go to
    weights of blocks that are kept."""
    best, curvature = problem.best, problem.curvature
    if problem.kept is None:
        parts = zip(best, curvature, scales, strict=True)
        rounded = [quantize_with_feedback(*part, bits, has_zero=has_zero) for part in parts]
        return torch.stack(rounded) if len(rounded) > 1 else rounded[0][None]
    result = torch.zeros_like(best[0])
    for filters, columns in kept_weights(problem, *problem.kept):
        result[filters, columns] = quantize_with_feedback(
            best[0, filters][:, columns],
            curvature[0][columns][:, columns],
            scales[0, filters],
            bits,
            has_zero=has_zero,
        )
    return result[None]


def _importance(problem: Problem) -> torch.Tensor:
    """The curvature's diagonal for each weight of each filter, (filters, d taps); no memory of its
    own where there is one group."""
    (groups, filters, length), taps = problem.best.shape, problem.taps
    diagonal = problem.curvature.diagonal(dim1=1, dim2=2)[:, None].expand(groups, taps, length)
    return (
        whole_filters(diagonal, taps)[:, None]
        .expand(groups, filters // taps, length * taps)
        .flatten(0, 1)
    )
