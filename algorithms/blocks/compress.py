"""1xN pruning over a network, front to back: each layer is solved for the inputs that the pruned
layers before it give."""

import torch
from torch import nn

from subpc.algorithms.blocks.choose_layers import sort_layers
from subpc.algorithms.blocks.config import BlockConfig
from subpc.algorithms.images.random_images import inputs_for
from subpc.algorithms.layer_fit.least_squares import eliminate, layer_problem, solve
from subpc.algorithms.network.checked_copy import (
    checked_copy,
    own_weights,
    reference_of,
    set_weight,
)
from subpc.algorithms.network.pairing import find_pairs
from subpc.algorithms.numerics.one_by_n import block_mask, expand, magnitudes, pruned_count
from subpc.algorithms.numerics.quantizers import Quantized
from subpc.algorithms.report import DataFreeReport, LayerResult
from subpc.algorithms.statistics.follow import run_side_by_side
from subpc.algorithms.statistics.moments import Inputs, Moments, grouped_rows
from subpc.errors import ConfigError
from subpc.progress import Progress, silent

# The longest filter whose blocks go in rounds: those of longer ones go at once, because a round
# costs the square of the length for every group of filters.
_LONGEST = 1_500


@torch.no_grad()
def compress_blocks(
    model: nn.Module,
    config: BlockConfig,
    progress: Progress = silent,
    *,
    images: torch.Tensor | None = None,
    input_shape: tuple[int, ...] | None = None,
) -> tuple[nn.Module, dict[str, Quantized], DataFreeReport]:
    """The pruned copy, no codes (the weights stay float), and the report. `model` is not changed.

    images: normalised ones (p, c, h, w) to take the statistics from; without them `config.inputs`
    says what is used instead.
    input_shape: (n, c, h, w) of the network, found by trying where it is left out.
    Raises UnsupportedModelError where the network cannot be traced or followed, ModelFileError for
    NaN weights or statistics, ConfigError where no layer can be pruned.
    """
    given, model = model, checked_copy(model)
    modules = dict(model.named_modules())
    graph = find_pairs(model).graph
    results = sort_layers(graph, modules, config)
    pruned = [name for name, result in results.items() if not result.reason]
    if config.sparsity > 0 and not pruned:
        reasons = "; ".join(
            f"{name}: {result.reason}" for name, result in list(results.items())[:5]
        )
        raise ConfigError(
            f"No convolution can be pruned in blocks of {config.n} ({reasons}).\nChoose another n,"
            " sparsity or keep_dense."
        )
    if not pruned or not config.follows_network:
        for name in pruned:
            _prune(modules[name], config, results[name], None)
        own_weights(model, given)
        return model, {}, DataFreeReport.of("blocks", model, {}, results)

    def at_layer(name: str, inputs: Inputs) -> None:
        progress(name, list(results).index(name), len(results))
        if name in pruned:
            _prune(modules[name], config, results[name], inputs() if config.needs_moments else None)

    correct = config.compensation in ("full", "batch_norm")
    images, label = inputs_for(model, config.inputs, images, input_shape, progress)
    run_side_by_side(graph, (reference_of(given, model), model), images, at_layer, correct=correct)
    own_weights(model, given)
    return model, {}, DataFreeReport.of("blocks", model, {}, results, label)


def _prune(
    conv: nn.Module, config: BlockConfig, result: LayerResult, moments: Moments | None
) -> None:
    """Zero the blocks of one layer and, with the moments of its inputs, solve the others."""
    assert isinstance(conv, nn.Conv2d)
    weight, channels = conv.weight, conv.in_channels
    count = pruned_count(config.sparsity, channels)
    mask = block_mask(magnitudes(weight, config.n), count)
    result.sparsity = 1 - float(mask.float().mean())
    if moments is None:
        set_weight(conv, weight * expand(mask, config.n))
        return
    problem = layer_problem(conv, moments, config.ridge)
    if config.criterion == "error":
        rounds = config.rounds if problem.best.shape[2] <= _LONGEST else 1
        mask = eliminate(problem, channels, config.n, count, rounds)
    set_weight(conv, weight * expand(mask, config.n))
    cut = grouped_rows(conv, problem.taps)
    solved = (
        solve(problem, mask, config.n)[None] if config.compensation in ("full", "weights") else cut
    )
    result.error_before, result.error_after = (
        problem.relative_error(rows) for rows in (cut, solved)
    )
    result.coefficients = (float(solved.min()), float(solved.max()))
    set_weight(conv, problem.weights(solved).view_as(weight).float())
