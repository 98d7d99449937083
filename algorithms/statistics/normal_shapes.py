"""Slices and padding between two fields: places go or come, channels are chosen or filled with a
constant."""

import operator
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx

from subpc.algorithms.statistics.normal_channels import Field

_RANK = 4


def is_number(node: fx.Node) -> bool:
    """Whether a step asks for sizes, which are no values of an image."""
    return node.target in ("size", "dim", "numel", "ndimension") or (
        node.target is getattr and node.args[1] in ("shape", "ndim")
    )


def reshaped(node: fx.Node, source: Field) -> Field | None:
    """What a slice or a padding of images (n, c, h, w) leaves; None for any other step.

    A slice of height or width leaves what is left as it was; zeros around an image, or between two
    that are joined, are few.
    """
    if node.target is operator.getitem:
        index = node.args[1]
        return _sliced(source, index) if isinstance(index, tuple) else None
    if node.target in (F.pad, torch.nn.functional.pad, "pad"):
        return _padded(source, node)
    if node.target is torch.zeros_like:
        return _times(source, 0.0)
    if node.target in (torch.mul, operator.mul, "mul", "mul_") and len(node.args) == 2:
        factor = node.args[1]
        return _times(source, float(factor)) if isinstance(factor, int | float) else None
    return None


def _sliced(source: Field, index: tuple[Any, ...]) -> Field | None:
    """By slices alone: an index of one place, or of a list of them, changes the number of
    dimensions or their order."""
    if Ellipsis in index:
        at = index.index(Ellipsis)
        index = (*index[:at], *[slice(None)] * (_RANK - len(index) + 1), *index[at + 1 :])
    if len(index) > _RANK or not all(isinstance(part, slice) for part in index):
        return None
    channels = index[1] if len(index) > 1 else slice(None)
    if not all(
        isinstance(end, int | None) for end in (channels.start, channels.stop, channels.step)
    ):
        return None
    if channels == slice(None):
        return source
    before, now = (len(mean) for mean in source.means)
    return select(source, list(range(before))[channels]) if before == now else None


def _padded(source: Field, node: fx.Node) -> Field | None:
    pads: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("pad")
    mode: Any = node.args[2] if len(node.args) > 2 else node.kwargs.get("mode", "constant")
    value: Any = node.args[3] if len(node.args) > 3 else node.kwargs.get("value", 0)
    if (
        not isinstance(pads, Sequence)
        or not all(isinstance(pad, int) for pad in pads)
        or any(pad for pad in pads[6:])
    ):
        return None
    first, last = (*pads, *[0] * 6)[4:6]
    if (first, last) == (0, 0):
        return source
    if mode != "constant" or (value or 0) != 0 or min(first, last) < 0:
        return None
    return _with_zeros(source, first, last)


def select(source: Field, kept: list[int]) -> Field:
    """These channels of both networks, which have equally many."""
    index = torch.tensor(kept, dtype=torch.long)
    means = (source.means[0][index], source.means[1][index])
    own = (source.own[0][index][:, index], source.own[1][index][:, index])
    return Field(means=means, own=own, cross=source.cross[index][:, index])


def _with_zeros(source: Field, first: int, last: int) -> Field:
    """Channels that are always zero before and behind the others."""
    one, two = (first, last), (first, last, first, last)
    means = (F.pad(source.means[0], one), F.pad(source.means[1], one))
    return Field(
        means=means,
        own=(F.pad(source.own[0], two), F.pad(source.own[1], two)),
        cross=F.pad(source.cross, two),
    )


def _times(source: Field, factor: float) -> Field:
    gains = (torch.full_like(source.means[0], factor), torch.full_like(source.means[1], factor))
    return source.scaled(
        gains, (torch.zeros_like(source.means[0]), torch.zeros_like(source.means[1]))
    )
