"""Soft 1xN masks on a model's convolutions, renewed at the start of every epoch."""

from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from subpc.algorithms.network.keep_dense import dense_reasons
from subpc.algorithms.numerics.one_by_n import block_mask, expand, pruned_count
from subpc.algorithms.subp.config import SubpConfig
from subpc.algorithms.subp.scores import score, sparsity_at, update
from subpc.errors import ConfigError


class _StraightThrough(torch.autograd.Function):
    """weight * mask whose gradient is that of the unmasked weight, plus weight * pull: one pass
    over the weight each way."""

    @staticmethod
    def forward(
        ctx: Any, weight: torch.Tensor, mask: torch.Tensor, pull: torch.Tensor | None
    ) -> torch.Tensor:
        if pull is not None:
            ctx.save_for_backward(weight, pull)
        return weight * mask

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return (
            torch.addcmul(gradient, *ctx.saved_tensors) if ctx.saved_tensors else gradient,
            None,
            None,
        )


class BlockMask(nn.Module):
    """The parametrization: `mask` is (groups, in), one number a block; `decay` pulls masked weights
    to zero, as a part of the gradient."""

    mask: torch.Tensor
    decay: torch.Tensor

    def __init__(self, weight: torch.Tensor, n: int, decay: float) -> None:
        super().__init__()
        self.n, self.decays = n, decay > 0
        self.register_buffer(
            "mask", torch.ones(weight.shape[0] // n, weight.shape[1], device=weight.device)
        )
        self.register_buffer("decay", torch.tensor(decay, device=weight.device), persistent=False)

    def expanded(self, dtype: torch.dtype) -> torch.Tensor:
        """(out, in, 1, 1), ready to be multiplied with the weight."""
        return expand(self.mask.to(dtype), self.n)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """The masked weight, with the gradient of the unmasked one."""
        mask = self.expanded(weight.dtype)
        if not torch.is_grad_enabled():
            return weight * mask
        pull = (1 - mask) * self.decay.to(mask.dtype) if self.decays else None
        masked: torch.Tensor = _StraightThrough.apply(weight, mask, pull)  # type: ignore[no-untyped-call]
        return masked


class Subp:
    """Three lines in a training loop: `subp = Subp(model, config, epochs)`;
    `subp.step_epoch(epoch)` first; `subp.finalize()` at the end.

    epochs: of the training, needed where config.start and config.end are fractions of it. Raises
    ConfigError where the training ends before the sparsity is there, and where no layer can be
    pruned. The soft decay of masked weights is a part of their gradients, once a backward. Where
    the loss is scaled (AMP), keep `subp.loss_scale` at the scaler's factor, so that unscaling
    leaves the decay as it should be.
    """

    def __init__(self, model: nn.Module, config: SubpConfig, epochs: int | None = None) -> None:
        self.config = config if epochs is None else config.resolved(epochs)
        self._needs_epochs = epochs is None and config.in_fractions
        convs = {
            name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d)
        }
        reasons = dense_reasons(convs, config.keep_dense, config.n)
        self.left_dense = {name: reason for name, reason in reasons.items() if reason}
        self.layers = {name: conv for name, conv in convs.items() if not reasons[name]}
        if not self.layers:
            raise ConfigError(
                f"No convolution can be pruned in blocks of {config.n}: {self.left_dense}. Choose"
                " another n or keep_dense."
            )
        for module in self.layers.values():
            parametrize.register_parametrization(
                module, "weight", BlockMask(module.weight, config.n, config.soft_decay)
            )
        self.loss_scale = 1.0

    @property
    def loss_scale(self) -> float:
        """What the loss is multiplied with before backward; the soft decay is too."""
        return self._loss_scale

    @loss_scale.setter
    def loss_scale(self, scale: float) -> None:
        self._loss_scale = scale
        for _, block in self._pairs():
            block.decay.fill_(self.config.soft_decay * scale)

    @torch.no_grad()
    def step_epoch(self, epoch: int) -> float:
        """Renew every mask for `epoch` (from 0) and return its sparsity; depends on weights, masks,
        seed and epoch alone.

        ConfigError where start and end are fractions of a training whose length Subp was not told.
        """
        if self._needs_epochs:
            raise ConfigError(
                f"start {self.config.start:g} and end {self.config.end:g} are fractions of a"
                " training; pass its length too: Subp(model, config, epochs)."
            )
        rate = sparsity_at(epoch, self.config)
        for index, (weight, block) in enumerate(self._pairs()):
            generator = torch.Generator().manual_seed(
                (self.config.seed << 40) + (epoch << 16) + index
            )
            block.mask.copy_(
                update(score(weight, block.mask, self.config), rate, self.config, generator)
            )
        return self.sparsity

    @torch.no_grad()
    def prune_once(self, *, layerwise: bool = False) -> float:
        """One-shot 1xN pruning to config.sparsity by the config's scores, without regrowth; the
        sparsity that was reached.

        Uniform: floor(P * in) blocks of every group. Layer-wise (Lin et al., 1xN pattern, arXiv
        2105.14713): as many in the whole layer, wherever its lowest scores are.
        """
        for weight, block in self._pairs():
            scores = score(weight, block.mask, self.config)
            count = pruned_count(self.config.sparsity, scores.shape[1])
            block.mask.copy_(block_mask(scores, count, layerwise=layerwise))
        return self.sparsity

    @property
    def sparsity(self) -> float:
        """Share of pruned blocks, weights counted, among the layers under masks."""
        sizes = [(weight.numel(), float(block.mask.mean())) for weight, block in self._pairs()]
        return 1 - sum(size * live for size, live in sizes) / sum(size for size, _ in sizes)

    def finalize(self) -> None:
        """Leave plain modules with masked weights behind; the masks and the soft decay are gone."""
        for module in self.layers.values():
            with torch.no_grad():
                parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)

    def _pairs(self) -> list[tuple[nn.Parameter, BlockMask]]:
        weights: list[Any] = [m.parametrizations for m in self.layers.values()]
        return [(found.weight.original, found.weight[0]) for found in weights]
