"""1xN pruning over a network, front to back."""

from collections.abc import Callable

import torch
from torch import nn

from subpc.algorithms.blocks.config import BlockConfig
from subpc.algorithms.blocks.layers import sort_layers
from subpc.algorithms.blocks.select import block_mask, expand, magnitudes
from subpc.algorithms.check_model import checked_copy
from subpc.algorithms.data_free_report import DataFreeReport
from subpc.algorithms.pairing import find_pairs
from subpc.algorithms.quantizers import Quantized
from subpc.errors import ConfigError

Progress = Callable[[str, int, int], None]


def _silent(stage: str, done: int, total: int) -> None:
    """No progress wanted."""


@torch.no_grad()
def compress_blocks(
    model: nn.Module, config: BlockConfig, progress: Progress = _silent
) -> tuple[nn.Module, dict[str, Quantized], DataFreeReport]:
    """The pruned copy, no codes (the weights stay float), and the report. `model` is not changed.

    Raises UnsupportedModelError where the network cannot be traced, ModelFileError for NaN weights or statistics, ConfigError
    where no layer can be pruned.
    """
    model = checked_copy(model)
    modules = dict(model.named_modules())
    results = sort_layers(find_pairs(model).graph, modules, config)
    pruned = [name for name, result in results.items() if not result.reason]
    if config.sparsity > 0 and not pruned:
        reasons = "; ".join(f"{name}: {result.reason}" for name, result in list(results.items())[:5])
        raise ConfigError(f"No convolution can be pruned in blocks of {config.n} ({reasons}).\nChoose another n, sparsity or keep_dense.")
    for index, name in enumerate(pruned):
        progress(name, index, len(pruned))
        weight = modules[name].weight
        assert isinstance(weight, torch.Tensor)
        mask = block_mask(magnitudes(weight, config.n), config.sparsity)
        results[name].sparsity = 1 - float(mask.float().mean())
        weight.mul_(expand(mask, config.n))
    return model, {}, DataFreeReport.of("blocks", model, {}, results)
