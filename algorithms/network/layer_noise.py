"""How far each layer's output is from what it was: both networks run on the same random input."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

# Above this, float32 outputs are equal bit for bit, or nearly so.
EXACT_DB = 150.0
# Sides that are tried where nothing says the input's size.
_SIDES = (64, 224, 32, 28, 299)


def layer_snr(
    before: nn.Module,
    after: nn.Module,
    names: Iterable[str],
    shape: tuple[int, ...],
    *,
    seed: int = 0,
) -> dict[str, float]:
    """10 log10(sum y^2 / sum (y - y')^2) in dB of each layer's output, at most EXACT_DB; layers
    whose outputs differ in shape are absent.

    Noise of the layers in front is part of it: each network runs as a whole, on normal random
    numbers of `shape` (batch 1).
    """
    names = list(names)
    x = torch.randn(1, *shape[1:], generator=torch.Generator().manual_seed(seed))
    expected, found = _outputs(before, names, x), _outputs(after, names, x)
    ratios = {}
    for name in names:
        pairs = list(zip(expected.get(name, []), found.get(name, []), strict=False))
        if pairs and all(y.shape == z.shape for y, z in pairs):
            ratios[name] = _decibel(pairs)
    return ratios


def _decibel(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
    signal = sum(float(y.double().square().sum()) for y, _ in pairs)
    noise = sum(float((y - z).double().square().sum()) for y, z in pairs)
    if noise == 0:
        return EXACT_DB
    return (
        0.0
        if signal == 0
        else min(
            10 * float(torch.log10(torch.tensor(signal / noise, dtype=torch.float64))), EXACT_DB
        )
    )


def _outputs(model: nn.Module, names: list[str], x: torch.Tensor) -> dict[str, list[torch.Tensor]]:
    outputs: dict[str, list[torch.Tensor]] = {}
    with torch.no_grad(), _hooked(model, names, outputs):
        model(x)
    return outputs


@contextmanager
def _hooked(
    model: nn.Module, names: list[str], outputs: dict[str, list[torch.Tensor]]
) -> Iterator[None]:
    modules = dict(model.named_modules())

    def keep(name: str) -> Any:
        return lambda module, inputs, output: outputs.setdefault(name, []).append(output)

    hooks = [modules[name].register_forward_hook(keep(name)) for name in names if name in modules]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def working_shape(model: nn.Module) -> tuple[int, ...] | None:
    """(1, c, side, side) that the network runs on, found by trying; None where none does."""
    conv = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    if conv is None:
        return None
    shapes = ((1, conv.in_channels, side, side) for side in _SIDES)
    return next((shape for shape in shapes if runs_on(model, shape)), None)


def runs_on(model: nn.Module, shape: tuple[int, ...]) -> bool:
    """Whether the network takes input of this shape."""
    try:
        with torch.no_grad():
            model(torch.zeros(shape))
    except Exception:
        return False
    return True
