"""Networks without a checkpoint: torchvision architectures, seeded weights, a 1xN pattern,
activations that stay alive to the end."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from subpc.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

# A parameter that starts smaller than this scales a branch that training has yet to open:
# LayerScale, a last batch norm of zeros.
CLOSED = 1e-3
IMAGES = 4


def seeded_model(name: str, seed: int = 0) -> "nn.Module":
    """A torchvision architecture in eval mode whose random weights are the same in every run."""
    import torch

    from subpc.frontend.architectures.torchvision_import import import_torchvision

    models = import_torchvision().models
    if name not in models.list_models():
        raise ConfigError(
            f"torchvision has no model {name!r}; its names:"
            f" {', '.join(models.list_models()[:20])}, ..."
        )
    torch.manual_seed(seed)
    model: nn.Module = models.get_model(name, weights=None)
    return model.eval()


def set_statistics(model: "nn.Module", shape: Sequence[int], seed: int = 0) -> "nn.Module":
    """`model` in eval mode, as if it had been trained: what it returns depends on its input,
    through every branch.

    With random weights alone activations fade from layer to layer, until another input changes the
    output by less than rounding does. Batch norms get random weights and the statistics of one
    forward pass in training mode over images of `shape`, whatever its batch.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    model.eval()
    norms = [
        part for part in model.modules() if isinstance(part, torch.nn.modules.batchnorm._BatchNorm)
    ]
    scales = [norm.weight for norm in norms if norm.affine]
    closed = [
        p
        for name, p in model.named_parameters()
        if "bias" not in name and p.numel() > 1 and float(p.detach().abs().max()) < CLOSED
    ]
    with torch.no_grad():
        for scale in (*scales, *closed):
            scale.uniform_(0.5, 1.5, generator=generator)
        for norm in norms:
            if norm.affine:
                norm.bias.uniform_(-0.2, 0.2, generator=generator)
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.train().momentum = 1.0
        model(torch.randn(IMAGES, *shape[1:], generator=generator))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.eval().momentum = momentum
    return model


def prune_uniform(
    model: "nn.Module",
    *,
    n: int,
    sparsity: float,
    pointwise_only: bool = False,
    layerwise: bool = False,
) -> "nn.Module":
    """Zero whole blocks of n filters in one input channel, the smallest first, equally many in each
    group of filters.

    layerwise: the smallest blocks of the whole layer instead, so that groups differ (the 1xN
    pattern without the uniform rule).

    The first convolution, grouped ones, and those whose filters do not divide by n stay dense. Kept
    weights grow so that activations keep their size through a deep network.
    """
    import torch

    convs = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    for conv in convs[1:]:
        if (
            conv.groups == 1
            and conv.out_channels % n == 0
            and not (pointwise_only and conv.kernel_size != (1, 1))
        ):
            prune_conv(conv, n, sparsity, layerwise)
    return model


def prune_conv(conv: "nn.Conv2d", n: int, sparsity: float, layerwise: bool = False) -> None:
    """Zero the smallest blocks of a convolution, whose filters n divides, as `prune_uniform`
    does."""
    import torch

    from subpc.algorithms.numerics.one_by_n import block_mask, expand, magnitudes

    with torch.no_grad():
        kept = max(1, round((1 - sparsity) * conv.in_channels))
        mask = block_mask(magnitudes(conv.weight, n), conv.in_channels - kept, layerwise=layerwise)
        conv.weight.mul_(expand(mask, n) * (conv.in_channels / kept) ** 0.5)
