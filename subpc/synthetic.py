"""Networks for measuring speed without a pruned checkpoint: torchvision architectures, seeded weights, a 1xN pattern."""

from typing import TYPE_CHECKING

from subpc.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn


def seeded_model(name: str, seed: int = 0) -> "nn.Module":
    """A torchvision architecture in eval mode whose random weights are the same in every run."""
    import torch

    from subpc.frontend.torchvision_import import import_torchvision

    models = import_torchvision().models
    if name not in models.list_models():
        raise ConfigError(f"torchvision has no model {name!r}; its names: {', '.join(models.list_models()[:20])}, ...")
    torch.manual_seed(seed)
    model: nn.Module = models.get_model(name, weights=None)
    return model.eval()


def prune_uniform(model: "nn.Module", *, n: int, sparsity: float, pointwise_only: bool = False, layerwise: bool = False) -> "nn.Module":
    """Zero whole blocks of n filters in one input channel, the smallest first, equally many in each group of filters.

    layerwise: the smallest blocks of the whole layer instead, so that groups differ (the 1xN pattern without the uniform rule).

    The first convolution, grouped ones, and those whose filters do not divide by n stay dense. Kept weights grow so that
    activations keep their size through a deep network.
    """
    import torch

    convs = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    for conv in convs[1:]:
        if conv.groups == 1 and conv.out_channels % n == 0 and not (pointwise_only and conv.kernel_size != (1, 1)):
            _prune(conv, n, sparsity, layerwise)
    return model


def _prune(conv: "nn.Conv2d", n: int, sparsity: float, layerwise: bool) -> None:
    import torch

    with torch.no_grad():
        blocks = conv.weight.view(conv.out_channels // n, n, conv.in_channels, -1)
        kept = max(1, round((1 - sparsity) * conv.in_channels))
        scores = blocks.abs().sum(dim=(1, 3))  # (groups, c_in)
        rows = scores.view(1, -1) if layerwise else scores
        best = rows.topk(kept * (scores.shape[0] if layerwise else 1), dim=1).indices
        mask = torch.zeros_like(rows).scatter_(1, best, 1.0).view_as(scores)
        blocks.mul_(mask[:, None, :, None] * (conv.in_channels / kept) ** 0.5)
