"""1xN pruning over a network, front to back: each layer is solved for the inputs that the pruned layers before it give."""

import copy
from collections.abc import Callable

import torch
from torch import nn

from subpc.algorithms.blocks.config import BlockConfig
from subpc.algorithms.blocks.layers import sort_layers
from subpc.algorithms.blocks.reconstruct import eliminate, patches, pose, solve
from subpc.algorithms.blocks.select import block_mask, expand, magnitudes
from subpc.algorithms.blocks.side_by_side import run_side_by_side
from subpc.algorithms.check_model import checked_copy
from subpc.algorithms.data_free_report import DataFreeReport, LayerResult
from subpc.algorithms.pairing import find_pairs
from subpc.algorithms.quantizers import Quantized
from subpc.algorithms.synthetic import synthetic_pictures
from subpc.errors import ConfigError

Progress = Callable[[str, int, int], None]
# Patches that the statistics of a layer are taken from, and the longest patch whose blocks go in rounds: longer ones go at once,
# because a round costs the square of the length for every group of filters.
_POSITIONS, _LONGEST = 20_000, 1_500


def _silent(stage: str, done: int, total: int) -> None:
    """No progress wanted."""


@torch.no_grad()
def compress_blocks(
    model: nn.Module, config: BlockConfig, progress: Progress = _silent, *, pictures: torch.Tensor | None = None
) -> tuple[nn.Module, dict[str, Quantized], DataFreeReport]:
    """The pruned copy, no codes (the weights stay float), and the report. `model` is not changed.

    pictures: normalised ones (p, c, h, w) to take the statistics from; without them pictures are generated from the network.
    Raises UnsupportedModelError where the network cannot be traced, ModelFileError for NaN weights or statistics, ConfigError
    where no layer can be pruned.
    """
    model = checked_copy(model)
    modules = dict(model.named_modules())
    graph = find_pairs(model).graph
    results = sort_layers(graph, modules, config)
    pruned = [name for name, result in results.items() if not result.reason]
    if config.sparsity > 0 and not pruned:
        reasons = "; ".join(f"{name}: {result.reason}" for name, result in list(results.items())[:5])
        raise ConfigError(f"No convolution can be pruned in blocks of {config.n} ({reasons}).\nChoose another n, sparsity or keep_dense.")
    if not pruned or not config.needs_pictures:
        for name in pruned:
            _prune(modules[name], config, results[name], None)
        return model, {}, DataFreeReport.of("blocks", model, {}, results)
    inputs = "given ones"
    if pictures is None:
        options = {"count": config.pictures, "size": config.size, "steps": config.steps, "seed": config.seed}
        pictures, inputs = synthetic_pictures(model, **options, progress=progress), f"{config.pictures} generated"

    def at_conv(name: str, before: torch.Tensor, now: torch.Tensor) -> None:
        progress(name, list(results).index(name), len(results))
        if name in pruned:
            _prune(modules[name], config, results[name], (before, now))

    correct = config.compensation in ("full", "batch_norm")
    run_side_by_side(graph, copy.deepcopy(model), model, pictures, at_conv, correct=correct)
    return model, {}, DataFreeReport.of("blocks", model, {}, results, inputs)


def _prune(conv: nn.Module, config: BlockConfig, result: LayerResult, inputs: tuple[torch.Tensor, torch.Tensor] | None) -> None:
    """Zero the blocks of one layer and, with its inputs before and now, solve the others."""
    assert isinstance(conv, nn.Conv2d)
    weight = conv.weight
    mask = block_mask(magnitudes(weight, config.n), config.sparsity)
    result.sparsity = 1 - float(mask.float().mean())
    if inputs is None or (config.criterion == "l1" and config.compensation in ("none", "batch_norm")):
        weight.mul_(expand(mask, config.n))
        return
    before, now = (patches(x, conv, _POSITIONS) for x in inputs)
    problem = pose(weight, before, now, config.ridge)
    if config.criterion == "error":
        rounds = config.rounds if len(problem.curvature) <= _LONGEST else 1
        mask = eliminate(problem, config.n, int(config.sparsity * weight.shape[1]), rounds)
    cut = (weight * expand(mask, config.n)).double().flatten(1)
    solved = solve(problem, mask, config.n) if config.compensation in ("full", "weights") else cut
    result.error_before, result.error_after = (problem.relative_error(weights) for weights in (cut, solved))
    result.coefficients = (float(solved.min()), float(solved.max()))
    weight.copy_(solved.view_as(weight))
