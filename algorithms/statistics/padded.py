"""What the filters of a layer run over: its input with the padding, also where the layer pads in a
forward of its own."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

# left, right, top, bottom, as F.pad takes them
Sides = tuple[int, int, int, int]


def padded(layer: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """Images (n, c, h, w) with all that the layer adds around them.

    Classes that override forward (TensorFlow's SAME padding, for one) and modes other than zeros
    are asked: their forward runs up to the convolution, and what that is given is the answer.
    """
    if _is_plain(layer):
        return _with_zeros(x, layer, layer.padding)
    given = _Given()
    try:
        with given:
            layer.forward(x)
    except _Reached:
        return _with_zeros(given.images, layer, given.padding)
    return _with_zeros(x, layer, layer.padding)


def zeros_beside(layer: nn.Conv2d, size: int = 64) -> tuple[float, float]:
    """Rows and columns of zeros that the layer adds on each side of a plane of `size` pixels, the
    mean of both sides."""
    if _is_plain(layer):
        left, right, top, bottom = _sides(layer, layer.padding)
        return (top + bottom) / 2, (left + right) / 2
    if layer.padding_mode != "zeros":
        return 0.0, 0.0
    high, wide = padded(layer, torch.zeros(1, layer.in_channels, size, size)).shape[2:]
    return (high - size) / 2, (wide - size) / 2


def _is_plain(layer: nn.Conv2d) -> bool:
    """Whether its padding says what it pads with."""
    return type(layer).forward is nn.Conv2d.forward and layer.padding_mode == "zeros"


class _Reached(Exception):
    """The forward has come to its convolution, and is left."""


class _Given(TorchFunctionMode):
    """Notes what the first convolution is given."""

    images: torch.Tensor
    padding: str | int | tuple[int, ...]

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """See TorchFunctionMode."""
        named = {**dict(zip(_ARGUMENTS, args, strict=False)), **(kwargs or {})}
        if function is F.conv2d:
            self.images, self.padding = named["input"], named.get("padding", 0)
            raise _Reached
        return function(*args, **(kwargs or {}))


_ARGUMENTS = ("input", "weight", "bias", "stride", "padding")


def _with_zeros(
    x: torch.Tensor, layer: nn.Conv2d, padding: str | int | tuple[int, ...]
) -> torch.Tensor:
    sides = _sides(layer, padding)
    return F.pad(x, sides) if any(sides) else x


def _sides(layer: nn.Conv2d, padding: str | int | tuple[int, ...]) -> Sides:
    if padding == "same":
        down, across = (d * (k - 1) for k, d in zip(layer.kernel_size, layer.dilation, strict=True))
        return across // 2, across - across // 2, down // 2, down - down // 2
    if isinstance(padding, str):
        return 0, 0, 0, 0
    high, wide = (padding, padding) if isinstance(padding, int) else (padding[0], padding[-1])
    return wide, wide, high, high
