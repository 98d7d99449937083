"""What the data-free methods ask of a network before they touch it."""

import copy

import torch
from torch import nn

from subpc.errors import ModelFileError, UnsupportedModelError

_WITH_WEIGHTS = (nn.Conv2d, nn.Linear)


def checked_copy(model: nn.Module) -> nn.Module:
    """A float32 copy in eval mode. Its layers' weights are the given ones in the same memory until
    they are set: see set_weight.

    ModelFileError where a weight or a statistic is not finite, or a variance negative;
    UnsupportedModelError where a batch norm has none, or a weight is computed from others.
    """
    _check_weights(model)
    weights = [module.weight for module in model.modules() if isinstance(module, _WITH_WEIGHTS)]
    shared = {
        id(weight): nn.Parameter(weight.detach(), requires_grad=weight.requires_grad)
        for weight in weights
    }
    result = copy.deepcopy(model, shared).float().eval()
    for name, tensor in result.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ModelFileError(
                f"{name} has values that are not finite (NaN or infinity).\nTake a checkpoint from"
                " before training diverged."
            )
        if name.endswith("running_var") and bool((tensor < 0).any()):
            raise ModelFileError(
                f"{name} has negative variances.\nThe file is damaged, or its entries are in"
                " another order."
            )
    for name, module in result.named_modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_var is None:
            raise UnsupportedModelError(
                f"{name} keeps no running statistics (track_running_stats=False), so its output"
                " depends on what else is in a batch.\nTurn them on and run some images through"
                " the network in training mode."
            )
    return result


def _check_weights(model: nn.Module) -> None:
    for name, module in model.named_modules():
        weight, buffers = getattr(module, "weight", None), dict(module.named_buffers(recurse=False))
        if (
            isinstance(weight, torch.Tensor)
            and not isinstance(weight, nn.Parameter)
            and "weight" not in buffers
        ):
            raise UnsupportedModelError(
                f"{name}.weight is computed from other tensors (a pruning mask, weight norm, a"
                " parametrization), so it cannot be set.\nMake it permanent first:"
                " torch.nn.utils.prune.remove, remove_weight_norm or"
                " parametrize.remove_parametrizations."
            )


def set_weight(layer: nn.Module, weight: torch.Tensor) -> None:
    """Give a layer of a checked copy another weight of the same shape, in memory of its own.

    Layers that share the parameter get it, too.
    """
    assert isinstance(layer.weight, nn.Parameter)
    layer.weight.data = weight


def own_weights(checked: nn.Module, given: nn.Module) -> None:
    """End the sharing: weights of the checked copy that are still in the given network's memory get
    memory of their own."""
    lent = {weight.untyped_storage().data_ptr() for weight in given.parameters()}
    for weight in checked.parameters():
        if weight.untyped_storage().data_ptr() in lent:
            weight.data = weight.data.clone()


def reference_of(given: nn.Module, checked: nn.Module) -> nn.Module:
    """What a changed copy is compared with: the given network where it runs as `checked`, its copy,
    does; else a copy of that."""
    tensors = (*given.parameters(), *given.buffers())
    as_checked = all(t.dtype == torch.float32 or not t.is_floating_point() for t in tensors)
    return (
        given
        if as_checked and not any(m.training for m in given.modules())
        else checked_copy(checked)
    )
