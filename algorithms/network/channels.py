"""Removing channels from modules: the arrays become smaller, and so do the counts that modules
keep."""

from collections.abc import Mapping

import torch
from torch import nn


def is_depthwise(layer: nn.Module) -> bool:
    """Whether each input channel has filters of its own."""
    return isinstance(layer, nn.Conv2d) and layer.groups > 1 and layer.groups == layer.in_channels


def keep_outputs(layer: nn.Conv2d | nn.Linear, kept: torch.Tensor) -> None:
    """Keep the filters, or outputs, that `kept` (c_out,) bool marks."""
    layer.weight = nn.Parameter(layer.weight.detach()[kept], requires_grad=False)
    if layer.bias is not None:
        layer.bias = nn.Parameter(layer.bias.detach()[kept], requires_grad=False)
    if isinstance(layer, nn.Linear):
        layer.out_features = int(kept.sum())
    else:
        layer.out_channels = int(kept.sum())


def keep_inputs(layer: nn.Conv2d | nn.Linear, kept: torch.Tensor) -> None:
    """Keep the input channels, or inputs, that `kept` (c_in,) bool marks: equally many in each
    group of a grouped convolution.

    The groups of a depthwise one are its channels: whole groups go, and their filters with them
    are left to keep_outputs.
    """
    count = int(kept.sum())
    if isinstance(layer, nn.Linear):
        layer.weight = nn.Parameter(layer.weight.detach()[:, kept], requires_grad=False)
        layer.in_features = count
        return
    if is_depthwise(layer):
        layer.groups = count
    else:
        rows = layer.weight.detach().view(layer.groups, -1, *layer.weight.shape[1:])
        parts = [
            row[:, columns] for row, columns in zip(rows, kept.view(len(rows), -1), strict=True)
        ]
        weight = torch.cat(parts) if len(parts) > 1 else parts[0]
        layer.weight = nn.Parameter(weight, requires_grad=False)
    layer.in_channels = count


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
    """Narrow the layers and batch norms of `model` to the widths in `state`.

    state: {name: tensor of any shape}. What would have to grow is left as it is, and so are the
    outputs of the last linear layer, which are classes.
    """
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            own, wanted = module.running_mean, state.get(f"{name}.running_mean")
        elif isinstance(module, nn.Conv2d | nn.Linear):
            own, wanted = module.weight, state.get(f"{name}.weight")
        else:
            continue
        if own is None or wanted is None or not _is_narrower(wanted.shape, own.shape):
            continue
        new, old = wanted.shape, own.shape
        if isinstance(module, nn.BatchNorm2d):
            keep_features(module, _first(new[0], old[0]))
        elif isinstance(module, nn.Conv2d) and module.groups > 1:
            _fit_groups(module, new)
        else:
            if name not in linear[-1:]:
                keep_outputs(module, _first(new[0], old[0]))
            keep_inputs(module, _first(new[1], old[1]))


def _is_narrower(new: torch.Size, old: torch.Size) -> bool:
    """Whether the channels, and nothing else, can be made fewer."""
    alike = len(new) == len(old) and new[2:] == old[2:] and new != old
    return alike and all(0 < a <= b for a, b in zip(new[:2], old[:2], strict=True))


def _fit_groups(conv: nn.Conv2d, wanted: torch.Size) -> None:
    """Fewer groups where the convolution is depthwise, else fewer channels in each."""
    each, filters = conv.out_channels // conv.groups, wanted[0]
    if is_depthwise(conv):
        if filters % each == 0 and wanted[1] == 1:
            keep_inputs(conv, _first(filters // each, conv.in_channels))
            keep_outputs(conv, _first(filters, conv.out_channels))
    elif filters % conv.groups == 0:
        keep_inputs(conv, _first(wanted[1], conv.weight.shape[1]).repeat(conv.groups))
        keep_outputs(conv, _first(filters // conv.groups, each).repeat(conv.groups))


def _first(count: int, total: int) -> torch.Tensor:
    return torch.arange(total) < count
