"""UDFC pair by pair, as the paper has it: removed channels expressed by kept ones, from the pair's
weights and batch norms alone."""

import torch
from torch import nn

from subpc.algorithms.network.batch_norm import gain_shift, gamma_beta, relu_moments
from subpc.algorithms.network.channels import keep_features, keep_inputs, keep_outputs
from subpc.algorithms.network.checked_copy import set_weight
from subpc.algorithms.network.pairing import LayerPair, Pairing
from subpc.algorithms.numerics.hermite import rectified_covariance, regression
from subpc.algorithms.numerics.quantizers import Quantized, quantize_uniform
from subpc.algorithms.report import LayerResult
from subpc.algorithms.udfc.choose_channels import choose_kept
from subpc.algorithms.udfc.coefficients import (
    merge_coefficients,
    quantization_scale,
    solve_coefficients,
)
from subpc.algorithms.udfc.config import UdfcConfig
from subpc.progress import Progress

_TINY = 1e-12


def prune_pair(
    pair: LayerPair, modules: dict[str, nn.Module], config: UdfcConfig, result: LayerResult
) -> None:
    first, norm, second = modules[pair.first], modules[pair.norm], modules[pair.second]
    assert (
        isinstance(first, nn.Conv2d)
        and isinstance(norm, nn.BatchNorm2d)
        and isinstance(second, nn.Conv2d)
    )
    weight = first.weight.double().flatten(1)
    kept = choose_kept(weight, config.ratio, config.criterion)
    if bool(kept.all()):
        return
    gain, shift = gain_shift(first, norm)
    coefficients = _coefficients(weight, norm, gain, shift, kept, config)
    rows = gain[:, None] * weight
    result.error_before = float(rows[~kept].norm() / rows.norm().clamp(min=1e-30))
    result.error_after = float(
        (rows[~kept] - coefficients.T @ rows[kept]).norm() / rows.norm().clamp(min=1e-30)
    )
    result.coefficients = (float(coefficients.min()), float(coefficients.max()))
    if config.method == "udfc" and config.statistics == "gaussian" and pair.second_norm is not None:
        covariance = rectified_covariance(
            gain[:, None] * weight, *_spread_mean(gain[:, None] * weight, shift, norm)
        )
        _move_statistics(
            second,
            modules[pair.second_norm],
            _spread_mean(gain[:, None] * weight, shift, norm),
            kept,
            coefficients,
            covariance,
        )
    merged = second.weight.double()
    merged[:, kept] += torch.einsum("kjhw,ij->kihw", merged[:, ~kept], coefficients)
    second.weight = nn.Parameter(merged.float(), requires_grad=False)
    keep_outputs(first, kept)
    keep_features(norm, kept)
    keep_inputs(second, kept)
    result.kept = int(kept.sum())


def _coefficients(
    weight: torch.Tensor,
    norm: nn.BatchNorm2d,
    gain: torch.Tensor,
    shift: torch.Tensor,
    kept: torch.Tensor,
    config: UdfcConfig,
) -> torch.Tensor:
    """(kept, removed): what each kept channel takes over from each removed one."""
    if config.method == "merge":
        return merge_coefficients(weight, gain, shift, kept)
    if config.method == "plain":
        return torch.zeros(int(kept.sum()), int((~kept).sum()), dtype=torch.float64)
    if config.statistics == "gaussian":
        return regression(
            rectified_covariance(
                gain[:, None] * weight, *_spread_mean(gain[:, None] * weight, shift, norm)
            ),
            kept,
            config.ridge,
        )
    return solve_coefficients(weight, gain, shift, kept, alpha1=config.alpha1, ridge=config.ridge)


def _spread_mean(
    rows: torch.Tensor, shift: torch.Tensor, norm: nn.BatchNorm2d
) -> tuple[torch.Tensor, torch.Tensor]:
    """Deviation and mean in front of the ReLU: gamma and beta, but a filter of zeros gives its
    shift alone."""
    gamma, beta = gamma_beta(norm)
    dead = rows.abs().amax(1) == 0
    return torch.where(dead, torch.zeros_like(gamma), gamma), torch.where(dead, shift, beta)


def _move_statistics(
    second: nn.Conv2d,
    behind: nn.Module,
    spread_mean: tuple[torch.Tensor, torch.Tensor],
    kept: torch.Tensor,
    coefficients: torch.Tensor,
    covariance: torch.Tensor,
) -> None:
    """Give the next batch norm the mean and variance of what it now gets.

    The mean that the estimate lacks is approximate at a zero-padded border. The estimate has less
    variance than what it stands for, by a ratio that `covariance` predicts with the taps of a
    filter taken as independent.
    """
    assert (
        isinstance(behind, nn.BatchNorm2d)
        and behind.running_mean is not None
        and behind.running_var is not None
    )
    gamma, beta = spread_mean
    mean, _ = relu_moments(beta, gamma**2)
    lacking = mean[~kept] - coefficients.T @ mean[kept]
    weight = second.weight.double()
    behind.running_mean.sub_((weight[:, ~kept].sum((2, 3)) @ lacking).float())
    estimate = torch.zeros_like(covariance)
    estimate[kept, kept] = 1
    estimate[torch.ones_like(covariance, dtype=torch.bool) & kept[:, None] & ~kept[None]] = (
        coefficients.reshape(-1)
    )
    changed = torch.einsum("kjhw,ij->kihw", weight, estimate)
    old, new = (torch.einsum("kihw,ij,kjhw->k", w, covariance, w) for w in (weight, changed))
    ratio = torch.where(old > _TINY, new / old.clamp(min=_TINY), torch.ones_like(old))
    behind.running_var.copy_(
        ((behind.running_var.double() + behind.eps) * ratio - behind.eps).clamp(min=0).float()
    )


def quantize_pairwise(
    modules: dict[str, nn.Module],
    pairing: Pairing,
    config: UdfcConfig,
    results: dict[str, LayerResult],
    progress: Progress,
) -> dict[str, Quantized]:
    """Codes of every layer, which keeps its weights at the width of config.bits."""
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
        if isinstance(module, nn.Conv2d) and name in pairing.norms and config.fold_scale:
            _fold_scale(module, modules[pairing.norms[name]], new, config.alpha2)
        set_weight(module, new)
        seen.add(id(module.weight))
    return codes


def _fold_scale(conv: nn.Conv2d, norm: nn.Module, new: torch.Tensor, alpha2: float) -> None:
    """Scale BN(z) by the coefficient, so that the next layer's weights stay plain integer
    multiples."""
    assert isinstance(norm, nn.BatchNorm2d)
    if norm.weight is None:
        return
    gain, shift = gain_shift(conv, norm)
    scale = quantization_scale(
        conv.weight.double().flatten(1), new.double().flatten(1), gain, shift, alpha2
    ).float()
    norm.weight.mul_(scale)
    norm.bias.mul_(scale)
