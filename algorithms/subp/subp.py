"""Soft 1xN masks on a model's convolutions, renewed at the start of every epoch."""

from fnmatch import fnmatch

import torch
from torch import nn
from torch.nn.utils import parametrize

from subpc.algorithms.subp.config import SubpConfig
from subpc.algorithms.subp.scores import score, sparsity_at, update
from subpc.errors import ConfigError


class BlockMask(nn.Module):
    """The parametrization: `mask` is (groups, in), one number a block."""

    mask: torch.Tensor

    def __init__(self, weight: torch.Tensor, n: int) -> None:
        super().__init__()
        self.n = n
        self.register_buffer("mask", torch.ones(weight.shape[0] // n, weight.shape[1], device=weight.device))

    def expanded(self, dtype: torch.dtype) -> torch.Tensor:
        """(out, in, 1, 1), ready to be multiplied with the weight."""
        return self.mask.to(dtype).repeat_interleave(self.n, 0)[:, :, None, None]

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """The masked weight, with the gradient of the unmasked one."""
        masked = weight * self.expanded(weight.dtype)
        return weight + (masked - weight).detach() if torch.is_grad_enabled() else masked


class Subp:
    """Three lines in a training loop: `subp = Subp(model, config)`; `subp.step_epoch(epoch)` first; `subp.finalize()` at the end.

    Call `subp.decay()` between backward and the optimizer's step for the soft decay of masked weights.
    """

    def __init__(self, model: nn.Module, config: SubpConfig) -> None:
        self.config = config
        self.layers: dict[str, nn.Conv2d] = {}
        self.left_dense: dict[str, str] = {}
        stem = True
        for name, module in list(model.named_modules()):
            if isinstance(module, nn.Conv2d):
                reason = "stem" if stem else _reason(name, module, config)
                stem = False
                if reason:
                    self.left_dense[name] = reason
                else:
                    self.layers[name] = module
        if not self.layers:
            raise ConfigError(f"No convolution can be pruned in blocks of {config.n}: {self.left_dense}. Choose another n or keep_dense.")
        for module in self.layers.values():
            parametrize.register_parametrization(module, "weight", BlockMask(module.weight, config.n))

    @torch.no_grad()
    def step_epoch(self, epoch: int) -> float:
        """Renew every mask for `epoch` (from 0) and return its sparsity; depends on weights, masks, seed and epoch alone."""
        rate = sparsity_at(epoch, self.config)
        for index, (weight, block) in enumerate(self._pairs()):
            generator = torch.Generator().manual_seed((self.config.seed << 40) + (epoch << 16) + index)
            block.mask.copy_(update(score(weight, block.mask, self.config), rate, self.config, generator))
        return self.sparsity

    @torch.no_grad()
    def decay(self) -> None:
        """Add soft_decay * W to the gradient of masked weights only (after unscaling, where gradients are scaled)."""
        for weight, block in self._pairs():
            if weight.grad is not None:
                weight.grad += self.config.soft_decay * (1 - block.expanded(weight.dtype)) * weight

    @property
    def sparsity(self) -> float:
        """Share of pruned blocks, weights counted, among the layers under masks."""
        sizes = [(weight.numel(), float(block.mask.mean())) for weight, block in self._pairs()]
        return 1 - sum(size * live for size, live in sizes) / sum(size for size, _ in sizes)

    def finalize(self) -> None:
        """Leave plain modules with masked weights behind; the masks are gone."""
        for module in self.layers.values():
            with torch.no_grad():
                parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)

    def _pairs(self) -> list[tuple[nn.Parameter, BlockMask]]:
        return [(m.parametrizations.weight.original, m.parametrizations.weight[0]) for m in self.layers.values()]  # type: ignore[union-attr, index, misc]


def _reason(name: str, module: nn.Conv2d, config: SubpConfig) -> str:
    if module.groups != 1:
        return "grouped"
    if any(fnmatch(name, pattern) for pattern in config.keep_dense):
        return "kept dense by its name"
    return f"{module.out_channels} filters, not divisible by {config.n}" if module.out_channels % config.n else ""
