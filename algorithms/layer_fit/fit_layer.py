"""One layer solved anew and quantized, from the moments of its inputs in the reference and in the
changed network."""

from dataclasses import dataclass, replace

import torch
from torch import nn

from subpc.algorithms.layer_fit.least_squares import Problem, layer_problem
from subpc.algorithms.numerics.quantizers import (
    Quantized,
    codes_of,
    quantize_with_feedback,
    search_scale,
)
from subpc.algorithms.statistics.moments import Moments, grouped_rows, groups_of, whole_filters


@dataclass(frozen=True, kw_only=True)
class Rounding:
    """How weights become codes: bits; ternary, one scale a filter or one a layer; rounding errors
    made good by the values after them."""

    bits: int
    ternary: bool
    per_channel: bool
    feedback: bool


def problem_of(layer: nn.Module, moments: Moments | None, *, ridge: float, solve: bool) -> Problem:
    """The least-squares problem of a layer with weight (out, ...); without `solve`, or moments, its
    best weights are the old ones."""
    if moments is None:
        assert isinstance(layer.weight, torch.Tensor)
        rows = layer.weight.detach().reshape(groups_of(layer), -1, layer.weight[0].numel())
        return Problem(best=rows, curvature=torch.ones(len(rows), 1, 1))
    problem = layer_problem(layer, moments, ridge)
    return problem if solve else replace(problem, best=grouped_rows(layer, problem.taps))


def quantize_problem(problem: Problem, shape: torch.Size, how: Rounding) -> Quantized:
    """Codes of `shape`, that of the layer's weight (out, ...), near the problem's best weights."""
    best, taps = problem.best, problem.taps
    scale = search_scale(
        whole_filters(best, taps),
        _importance(problem),
        how.bits,
        ternary=how.ternary,
        per_channel=how.per_channel,
    )
    if how.feedback and problem.curvature.shape[1] == best.shape[2]:
        scales = scale.expand(shape[0], 1).repeat_interleave(taps, 0).reshape(*best.shape[:2], 1)
        parts = zip(best, problem.curvature, scales, strict=True)
        rounded = [quantize_with_feedback(*part, how.bits, ternary=how.ternary) for part in parts]
        best = torch.stack(rounded) if len(rounded) > 1 else rounded[0][None]
    codes = codes_of(whole_filters(best, taps), scale, how.bits, ternary=how.ternary).view(shape)
    return Quantized(codes=codes, scale=scale[:, 0].float(), bits=how.bits, ternary=how.ternary)


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
