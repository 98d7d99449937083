"""Scores of 1xN blocks, the sparsity schedule, and the masks that follow from both."""

import math

import torch
import torch.nn.functional as F

from subpc.algorithms.numerics.one_by_n import block_mask, blocks, lowest_blocks, pruned_count
from subpc.algorithms.subp.config import SubpConfig


def score(weight: torch.Tensor, mask: torch.Tensor, config: SubpConfig) -> torch.Tensor:
    """(groups, in) scores, the lowest are pruned. weight: (out, in, kh, kw), mask: (groups, in) of
    0 and 1."""
    live = blocks(weight, config.n) * mask.unsqueeze(2)
    ranked = blocks(weight, config.n) if config.latent_scores else live
    if config.criterion == "l2":
        return ranked.square().sum(2).sqrt()
    sizes = ranked.abs().sum(2)
    if config.criterion == "l1":
        return sizes
    # BPAR: norm share minus redundancy share; a masked block gets the worst redundancy.
    directions = F.normalize(live, dim=2, eps=1e-12)
    redundancy = torch.bmm(directions, directions.transpose(1, 2)).abs().sum(2)
    redundancy = redundancy / redundancy.sum(1, keepdim=True).clamp_min(1e-12)
    redundancy = torch.where(redundancy == 0, torch.ones_like(redundancy), redundancy)
    return sizes / sizes.sum(1, keepdim=True).clamp_min(1e-12) - config.alpha * redundancy


def sparsity_at(epoch: int, config: SubpConfig) -> float:
    """The share of pruned blocks in `epoch`, rising from 0 at config.start to config.sparsity at
    config.end."""
    span = config.end - config.start
    x = 1.0 if epoch >= config.end else max(0, epoch - config.start) / span
    if x == 1.0 or config.schedule == "linear":
        return config.sparsity * x
    if config.schedule == "cubic":
        return config.sparsity * x**3
    if config.schedule == "cos":
        return config.sparsity * (1 - math.cos(math.pi * x / 2))
    return config.sparsity * min(
        1.0, math.expm1(-0.05 * x * span) / math.expm1(-0.05 * max(span - 1, 1))
    )


def update(
    scores: torch.Tensor, rate: float, config: SubpConfig, generator: torch.Generator
) -> torch.Tensor:
    """The new mask (groups, in): the lowest floor(P * in) blocks of each group go, floor((P - rate)
    * in) of them are drawn back.

    The draw weighs candidates by a softmax of their normalised scores and is made on the CPU, so
    that it is the same on every device.
    """
    scores = scores.detach().float().cpu()
    count = pruned_count(config.sparsity, scores.shape[1])
    grow = min(count, pruned_count(config.sparsity - rate, scores.shape[1]))
    mask = block_mask(scores, count).float()
    if grow:
        candidates = lowest_blocks(scores, count)
        likely = (
            F.normalize(scores.gather(1, candidates), dim=1, eps=1e-12) / config.temperature
        ).softmax(1)
        drawn = torch.multinomial(likely.clamp_min(1e-30), grow, generator=generator)
        mask.scatter_(1, candidates.gather(1, drawn), 1.0)
    return mask
