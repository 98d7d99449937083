"""UDFC over a network: front to back, remove channels and reconstruct them in the next layer, then quantize."""

from collections.abc import Callable

import torch
from torch import nn

from subpc.algorithms.batch_norm import gain_shift
from subpc.algorithms.channels import keep_features, keep_inputs, keep_outputs
from subpc.algorithms.check_model import checked_copy
from subpc.algorithms.data_free_report import DataFreeReport, LayerResult
from subpc.algorithms.pairing import Pair, Pairing, find_pairs
from subpc.algorithms.quantizers import Quantized, quantize_uniform
from subpc.algorithms.udfc.config import UdfcConfig
from subpc.algorithms.udfc.reconstruct import merge_coefficients, quantization_scale, solve_coefficients
from subpc.errors import ConfigError

Progress = Callable[[str, int, int], None]


def _silent(stage: str, done: int, total: int) -> None:
    """No progress wanted."""


@torch.no_grad()
def compress_udfc(
    model: nn.Module, config: UdfcConfig, progress: Progress = _silent
) -> tuple[nn.Module, dict[str, Quantized], DataFreeReport]:
    """The compressed copy, the codes of each quantized layer, and the report. `model` is not changed.

    Raises UnsupportedModelError where the network cannot be traced, ModelFileError for NaN weights or statistics, ConfigError
    where no channel would stay.
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
    for index, pair in enumerate(pairing.pairs):
        progress(pair.first, index, len(pairing.pairs))
        if pair.first not in config.skip and config.ratio > 0:
            _prune(pair, modules, config, results[pair.first])
    codes = {} if config.bits is None else _quantize(modules, pairing, config, results, progress)
    return model, codes, DataFreeReport.of("udfc", model, codes, results)


def _has_weight(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d | nn.Linear)


def _prune(pair: Pair, modules: dict[str, nn.Module], config: UdfcConfig, result: LayerResult) -> None:
    first, norm, second = modules[pair.first], modules[pair.norm], modules[pair.second]
    assert isinstance(first, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d) and isinstance(second, nn.Conv2d)
    weight = first.weight.double().flatten(1)
    kept = choose_kept(weight, config)
    if bool(kept.all()):
        return
    gain, shift = gain_shift(first, norm)
    if config.method == "udfc":
        coefficients = solve_coefficients(weight, gain, shift, kept, alpha1=config.alpha1, ridge=config.ridge)
    elif config.method == "merge":
        coefficients = merge_coefficients(weight, gain, shift, kept)
    else:
        coefficients = torch.zeros(int(kept.sum()), int((~kept).sum()), dtype=torch.float64)
    rows = gain[:, None] * weight
    result.error_before = float(rows[~kept].norm() / rows.norm().clamp(min=1e-30))
    result.error_after = float((rows[~kept] - coefficients.T @ rows[kept]).norm() / rows.norm().clamp(min=1e-30))
    result.coefficients = (float(coefficients.min()), float(coefficients.max()))
    merged = second.weight.double()
    merged[:, kept] += torch.einsum("kjhw,ij->kihw", merged[:, ~kept], coefficients)
    second.weight = nn.Parameter(merged.float(), requires_grad=False)
    keep_outputs(first, kept)
    keep_features(norm, kept)
    keep_inputs(second, kept)
    result.kept = int(kept.sum())


def choose_kept(weight: torch.Tensor, config: UdfcConfig) -> torch.Tensor:
    """(c,) bool: all but the `ratio` of filters (c, d) of the smallest norm; ConfigError where none would stay."""
    count = round(len(weight) * (1 - config.ratio))
    if count < 1:
        raise ConfigError(f"ratio {config.ratio} leaves no channel of {len(weight)}; choose a smaller one.")
    order = weight.norm(p=1 if config.criterion == "l1" else 2, dim=1).argsort(descending=True, stable=True)
    kept = torch.zeros(len(weight), dtype=torch.bool)
    kept[order[:count]] = True
    return kept


def _quantize(
    modules: dict[str, nn.Module], pairing: Pairing, config: UdfcConfig, results: dict[str, LayerResult], progress: Progress
) -> dict[str, Quantized]:
    assert config.bits is not None
    codes: dict[str, Quantized] = {}
    seen: set[int] = set()
    for index, (name, result) in enumerate(results.items()):
        progress(name, index, len(results))
        module = modules[name]
        assert isinstance(module, nn.Conv2d | nn.Linear)
        if name in config.skip or id(module.weight) in seen:
            continue
        codes[name] = quantize_uniform(module.weight, config.bits, per_channel=config.per_channel)
        new = codes[name].dequantize()
        result.bits = config.bits
        if isinstance(module, nn.Conv2d) and name in pairing.norms and config.method == "udfc":
            _fold_scale(module, modules[pairing.norms[name]], new, config.alpha2)
        module.weight.copy_(new)
        seen.add(id(module.weight))
    return codes


def _fold_scale(conv: nn.Conv2d, norm: nn.Module, new: torch.Tensor, alpha2: float) -> None:
    """Scale BN(z) by the coefficient, so that the next layer's weights stay plain integer multiples."""
    assert isinstance(norm, nn.BatchNorm2d)
    if norm.weight is None:
        return
    gain, shift = gain_shift(conv, norm)
    scale = quantization_scale(conv.weight.double().flatten(1), new.double().flatten(1), gain, shift, alpha2).float()
    norm.weight.mul_(scale)
    norm.bias.mul_(scale)
