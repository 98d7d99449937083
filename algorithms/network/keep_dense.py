"""Which convolutions stay dense when 1xN blocks are pruned: by name, by kernel size, or by the
choice of the SUBP paper."""

import re
from collections.abc import Mapping
from fnmatch import fnmatch

from torch import nn

from subpc.algorithms.config import PAPER

_SHORTCUTS = ("*downsample*", "*shortcut*")
_SIZE = re.compile(r"(\d+)x(\d+)")


def dense_reasons(
    convs: Mapping[str, nn.Conv2d], keep_dense: tuple[str, ...], n: int
) -> dict[str, str]:
    """Why a convolution stays dense, "" where it does not; convs: all of a network, in its order,
    by their dotted names.

    The first one (the stem), depthwise and grouped ones, and those whose filters `n` does not
    divide always do. keep_dense: names (fnmatch patterns), kernel sizes ("1x1"), and "paper":
    projection shortcuts of networks of basic blocks, as in the paper's ResNet-18 and -34, but not
    those of bottlenecks, which have 1x1 convolutions elsewhere too (ResNet-50).
    """
    patterns = [entry for entry in keep_dense if entry != PAPER]
    if PAPER in keep_dense and not any(
        conv.kernel_size == (1, 1) and not _is_shortcut(name) for name, conv in convs.items()
    ):
        patterns += _SHORTCUTS
    stem = next(iter(convs), None)
    return {
        name: "stem" if name == stem else _reason(name, conv, patterns, n)
        for name, conv in convs.items()
    }


def _is_shortcut(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in _SHORTCUTS)


def _reason(name: str, conv: nn.Conv2d, patterns: list[str], n: int) -> str:
    if conv.groups != 1:
        return "depthwise" if conv.groups == conv.in_channels else "grouped"
    for pattern in patterns:
        size = _SIZE.fullmatch(pattern)
        if size is not None and conv.kernel_size == (int(size[1]), int(size[2])):
            return f"kept dense by its size, {pattern}"
        if size is None and fnmatch(name, pattern):
            return "kept dense by its name"
    return f"{conv.out_channels} filters, not divisible by {n}" if conv.out_channels % n else ""
