"""Removing channels from modules: the arrays become smaller, and so do the counts that modules keep."""

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
            setattr(norm, name, nn.Parameter(getattr(norm, name).detach()[kept], requires_grad=False))
    for name in ("running_mean", "running_var"):
        setattr(norm, name, getattr(norm, name)[kept])
    norm.num_features = int(kept.sum())
