"""Removing channels from modules: the arrays become smaller, and so do the counts that modules
keep."""

from collections.abc import Mapping

import torch
from torch import nn


def keep_outputs(conv: nn.Conv2d, kept: torch.Tensor) -> None:
    """Keep the filters that `kept` (c_out,) bool marks."""
    conv.weight = nn.Parameter(conv.weight.detach()[kept], requires_grad=False)
    if conv.bias is not None:
        conv.bias = nn.Parameter(conv.bias.detach()[kept], requires_grad=False)
    conv.out_channels = int(kept.sum())


def keep_inputs(conv: nn.Conv2d, kept: torch.Tensor) -> None:
    """Keep the input channels that `kept` (c_in,) bool marks."""
    conv.weight = nn.Parameter(conv.weight.detach()[:, kept], requires_grad=False)
    conv.in_channels = int(kept.sum())


def keep_features(norm: nn.BatchNorm2d, kept: torch.Tensor) -> None:
    """Keep the channels that `kept` (c,) bool marks."""
    for name in ("weight", "bias"):
        if getattr(norm, name) is not None:
            setattr(
                norm, name, nn.Parameter(getattr(norm, name).detach()[kept], requires_grad=False)
            )
    for name in ("running_mean", "running_var"):
        setattr(norm, name, getattr(norm, name)[kept])
    norm.num_features = int(kept.sum())


def fit_widths(model: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Narrow the convolutions and batch norms of `model` to the widths in `state`.

    state: {name: tensor of any shape}. What would have to grow is left as it is.
    """
    for name, module in model.named_modules():
        wanted = state.get(f"{name}.weight")
        if (
            wanted is None
            or not isinstance(module, nn.Conv2d | nn.BatchNorm2d)
            or wanted.dim() != module.weight.dim()
        ):
            continue
        narrower = all(
            new <= old for new, old in zip(wanted.shape[:2], module.weight.shape[:2], strict=True)
        )
        if wanted.shape == module.weight.shape or not narrower:
            continue
        if isinstance(module, nn.BatchNorm2d):
            keep_features(module, _first(wanted.shape[0], module.num_features))
        elif module.groups == 1:
            keep_outputs(module, _first(wanted.shape[0], module.out_channels))
            keep_inputs(module, _first(wanted.shape[1], module.in_channels))


def _first(count: int, total: int) -> torch.Tensor:
    return torch.arange(total) < count
