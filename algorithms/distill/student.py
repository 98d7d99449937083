"""The compressed network while it learns: zero blocks stay zero, quantized weights stay on their
levels."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from subpc.algorithms.network.checked_copy import set_weight
from subpc.algorithms.numerics.one_by_n import kept_blocks
from subpc.algorithms.numerics.quantizers import Quantized, codes_of, rounding


class _Rounded(nn.Module):
    """The value of the nearest code; the gradient of values within the levels goes through."""

    def __init__(self, codes: Quantized) -> None:
        super().__init__()
        shape = (-1, *[1] * (codes.codes.dim() - 1))
        self.register_buffer("scale", codes.scale.reshape(shape))
        self._bits, self._has_zero = codes.bits, codes.has_zero

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        scale = self.get_buffer("scale")
        nearest = rounding(scale, self._bits, has_zero=self._has_zero)
        inside = torch.minimum(torch.maximum(weight, -scale), scale)
        return inside + (nearest(inside.detach()) - inside).detach()


class _Masked(nn.Module):
    """Zero where the mask is."""

    def __init__(self, mask: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight * self.get_buffer("mask")


class Student:
    """`model`, whose weights can learn until `finish`; batch norms keep their statistics.

    codes: {layer: its quantized weight}, of which the model's weights have the values. Blocks of
    zeros, and levels and scales of codes, stay what they are; biases and the factors and offsets of
    batch norms learn, too.
    """

    def __init__(self, model: nn.Module, codes: Mapping[str, Quantized]) -> None:
        self.model, self._codes = model.eval(), codes
        model.requires_grad_(True)
        for name, layer in model.named_modules():
            if not isinstance(layer, nn.Conv2d | nn.Linear):
                continue
            mask = _mask(layer.weight)
            if name in codes:
                parametrize.register_parametrization(layer, "weight", _Rounded(codes[name]))
            if mask is not None:
                parametrize.register_parametrization(layer, "weight", _Masked(mask))

    def groups(self) -> list[dict[str, Any]]:
        """Groups of parameters for an optimizer: `width` of the levels of quantized weights, 0 for
        all others."""
        originals = {
            id(layer.parametrizations.weight.original): float(2 * codes.scale.mean() / codes.most)
            for name, layer in self.model.named_modules()
            if (codes := self._codes.get(name)) is not None
        }
        widths: dict[float, list[nn.Parameter]] = {}
        for parameter in self.model.parameters():
            widths.setdefault(originals.get(id(parameter), 0.0), []).append(parameter)
        return [{"params": found, "width": width} for width, found in widths.items()]

    def finish(self) -> dict[str, Quantized]:
        """Plain modules again; returns the new codes, whose values the weights have."""
        found = {}
        for name, layer in self.model.named_modules():
            if parametrize.is_parametrized(layer, "weight"):
                parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
            if name in self._codes:
                found[name] = _coded(layer.weight.detach(), self._codes[name])
                set_weight(layer, found[name].dequantize())
        self.model.requires_grad_(False)
        return found


def _coded(weight: torch.Tensor, old: Quantized) -> Quantized:
    rows, scale = weight.flatten(1), old.scale.reshape(-1, 1)
    codes = codes_of(rows, scale, old.bits, has_zero=old.has_zero)
    return replace(old, codes=codes.view(weight.shape))


def _mask(weight: torch.Tensor) -> torch.Tensor | None:
    """(out, in, 1, 1) of zeros where whole blocks are zero, None where none is."""
    found = kept_blocks(weight.detach())
    if found is None:
        return None
    mask, n = found
    return mask.float().repeat_interleave(n, 0).view(*weight.shape[:2], *[1] * (weight.dim() - 2))
