"""DF-MPC over a network: low precision for the first layer of each pair, compensated in front of the second."""

from collections.abc import Callable

import torch
from torch import nn

from subpc.algorithms.batch_norm import gain_shift, recalibrate
from subpc.algorithms.check_model import checked_copy
from subpc.algorithms.data_free_report import DataFreeReport, LayerResult
from subpc.algorithms.dfmpc.choose_pairs import choose_pairs
from subpc.algorithms.dfmpc.config import DfmpcConfig
from subpc.algorithms.dfmpc.solve import solve_scalars
from subpc.algorithms.pairing import Pair, find_pairs
from subpc.algorithms.quantizers import Quantized, quantize_ternary, quantize_uniform
from subpc.errors import ConfigError

_TINY = 1e-30
Progress = Callable[[str, int, int], None]


def _silent(stage: str, done: int, total: int) -> None:
    """No progress wanted."""


@torch.no_grad()
def compress_dfmpc(
    model: nn.Module, config: DfmpcConfig, progress: Progress = _silent, *, pictures: torch.Tensor | None = None
) -> tuple[nn.Module, dict[str, Quantized], DataFreeReport]:
    """The quantized copy, the codes of each layer, and the report. `model` is not changed.

    Raises UnsupportedModelError where the network cannot be traced, ModelFileError for NaN weights or statistics, ConfigError for
    unknown names in skip.
    """
    model = checked_copy(model)
    pairing = find_pairs(model)
    modules = dict(model.named_modules())
    unknown = sorted(set(config.skip) - set(modules))
    if unknown:
        raise ConfigError(f"skip names layers that the network does not have: {', '.join(unknown[:5])}.")
    results = {n: LayerResult(name=n, filters=m.weight.shape[0], kept=m.weight.shape[0]) for n, m in modules.items() if _has_weight(m)}
    for name, reason in pairing.left_alone.items():
        results[name].reason = reason
    pairs = tuple(p for p in pairing.pairs if not {p.first, p.second} & set(config.skip))
    low = {pair.first: pair for pair in choose_pairs(pairs, modules)}
    codes: dict[str, Quantized] = {}
    seen: set[int] = set()
    for index, (name, result) in enumerate(results.items()):
        progress(name, index, len(results))
        module = modules[name]
        assert isinstance(module, nn.Conv2d | nn.Linear)
        if name in config.skip or id(module.weight) in seen:
            continue
        seen.add(id(module.weight))
        result.bits = config.low_bits if name in low else config.high_bits
        codes[name] = quantize(module.weight, result.bits, per_channel=config.per_channel)
        new = codes[name].dequantize()
        result.error_before = result.error_after = _error(module.weight, new)
        if name in low:
            _compensate(low[name], modules, new, config, result)
        module.weight.copy_(new)
    return model, codes, DataFreeReport.of("dfmpc", model, codes, results)


def quantize(weight: torch.Tensor, bits: int, *, per_channel: bool) -> Quantized:
    """Ternary at 2 bits, uniform above (section 3.1 of the paper)."""
    return quantize_ternary(weight, per_channel=per_channel) if bits == 2 else quantize_uniform(weight, bits, per_channel=per_channel)


def _has_weight(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d | nn.Linear)


def _error(old: torch.Tensor, new: torch.Tensor) -> float:
    return float((new - old).norm() / old.norm().clamp(min=_TINY))


def _compensate(pair: Pair, modules: dict[str, nn.Module], new: torch.Tensor, config: DfmpcConfig, result: LayerResult) -> None:
    """Move the statistics of the first layer's batch norm, and scale what it gives by the coefficients."""
    conv, norm = modules[pair.first], modules[pair.norm]
    assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    gain, shift = gain_shift(conv, norm)
    rows = gain[:, None] * conv.weight.double().flatten(1)
    if config.recalibration == "norm-ratio":
        recalibrate(norm, conv.weight, new, None)
    new_gain, new_shift = gain_shift(conv, norm)
    new_rows = new_gain[:, None] * new.double().flatten(1)
    size = rows.norm().clamp(min=_TINY)
    result.error_before = float((new_rows - rows).norm() / size)
    if config.compensation == "none":
        result.error_after = result.error_before
        return
    if pair.activation != "relu" or norm.weight is None:
        result.reason = (
            "no coefficient: ReLU6 is not homogeneous" if norm.weight is not None else "no coefficient: batch norm without scale"
        )
        result.error_after = result.error_before
        return
    found = solve_scalars(rows, shift, new_rows, new_shift, lambda1=config.lambda1, lambda2=config.lambda2, clamp=config.clamp)
    norm.weight.mul_(found.float())
    norm.bias.mul_(found.float())
    result.error_after = float((found[:, None] * new_rows - rows).norm() / size)
    result.coefficients = (float(found.min()), float(found.max()))
