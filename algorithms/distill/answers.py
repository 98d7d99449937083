"""What two networks give for the same images, layer by layer, and how far they are apart."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from subpc.algorithms.distill.config import DistillConfig
from subpc.algorithms.numerics.divergence import divergence
from subpc.errors import ConfigError

_TINY = 1e-12


class Answers:
    """One network's outputs: `layers` {name: (n, ...)} after each call, and the result."""

    def __init__(self, model: nn.Module, names: tuple[str, ...]) -> None:
        self._model, self._names = model, names
        self.layers: dict[str, torch.Tensor] = {}

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Within the context calls fill `layers`."""
        modules = dict(self._model.named_modules())

        def keep(name: str, output: torch.Tensor) -> None:
            self.layers[name] = output

        hooks = [
            modules[name].register_forward_hook(lambda _m, _x, y, name=name: keep(name, y))
            for name in self._names
        ]
        yield
        for hook in hooks:
            hook.remove()

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """The scores, (n, classes) or (n, classes, ...), of images (n, c, h, w)."""
        self.layers.clear()
        result = self._model(images)
        if not isinstance(result, torch.Tensor) or result.dim() < 2:
            kind = type(result).__name__
            raise ConfigError(
                f"The network's result is of type {kind}; distillation needs one tensor of scores."
            )
        return result


def compared_layers(teacher: nn.Module, student: nn.Module) -> tuple[str, ...]:
    """Layers whose outputs both networks have with as many channels: the batch norms; convolutions
    where there are none."""
    for kind in (nn.BatchNorm2d, nn.Conv2d):
        old, new = (
            {name: module for name, module in model.named_modules() if isinstance(module, kind)}
            for model in (teacher, student)
        )
        if old:
            return tuple(n for n, m in old.items() if n in new and _width(m) == _width(new[n]))
    return ()


def _width(module: nn.Module) -> int:
    return module.num_features if isinstance(module, nn.BatchNorm2d) else module.out_channels  # type: ignore[return-value]


def apart(
    taught: torch.Tensor,
    scores: torch.Tensor,
    layers: Mapping[str, tuple[torch.Tensor, torch.Tensor]],
    config: DistillConfig,
) -> torch.Tensor:
    """The loss: D + features * the mean over `layers` of ||changed - own||^2 / ||own||^2.

    D: the divergence of the scores from those `taught`. layers: {name: (own, changed)}, the outputs
    of the float network and of the one that learns.
    """
    loss = divergence(scores, taught, config.temperature)
    if not layers or not config.features:
        return loss
    errors = [
        (changed - own).square().sum() / own.square().sum().clamp(min=_TINY)
        for own, changed in layers.values()
    ]
    return loss + config.features * torch.stack(errors).mean()
