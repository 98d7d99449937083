"""What the data-free methods ask of a network before they touch it."""

import copy

import torch
from torch import nn

from subpc.errors import ModelFileError, UnsupportedModelError


def checked_copy(model: nn.Module) -> nn.Module:
    """A float32 copy in eval mode.

    ModelFileError where a weight or a statistic is not finite, or a variance negative; UnsupportedModelError where a batch norm has none.
    """
    result = copy.deepcopy(model).float().eval()
    for name, tensor in result.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ModelFileError(
                f"{name} has values that are not finite (NaN or infinity).\nTake a checkpoint from before training diverged."
            )
        if name.endswith("running_var") and bool((tensor < 0).any()):
            raise ModelFileError(f"{name} has negative variances.\nThe file is damaged, or its entries are in another order.")
    for name, module in result.named_modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_var is None:
            raise UnsupportedModelError(
                f"{name} keeps no running statistics (track_running_stats=False), so its output depends on what else is in a batch.\n"
                "Turn them on and run some pictures through the network in training mode."
            )
    return result


def reference_of(given: nn.Module, checked: nn.Module) -> nn.Module:
    """What a changed copy is compared with: the given network where it runs as `checked`, its copy, does; else a copy of that."""
    tensors = (*given.parameters(), *given.buffers())
    as_checked = all(t.dtype == torch.float32 or not t.is_floating_point() for t in tensors)
    return given if as_checked and not any(m.training for m in given.modules()) else copy.deepcopy(checked)
