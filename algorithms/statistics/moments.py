"""Second moments of a layer's inputs, in a network and in its changed copy."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from subpc.algorithms.network.channels import is_depthwise
from subpc.algorithms.statistics.padded import padded

# Longest filter, in values, whose taps are taken together: that of 3x3 taps over 128 channels. The
# moments of longer ones cost the square of the length in memory and its cube in time, so that each
# tap is taken as a filter of its own there, over channels alone.
LONGEST = 1152
# Longest filter without taps.
WIDEST = 4608
# Values that moments are taken from in all: a product takes places times length squared.
_VALUES = 5_000 * 1152
# Values that are summed up together: what still fits the cache.
_AT_ONCE = 1 << 20
# Rows of a covariance that are added at a time.
_ROWS = 128


@dataclass(frozen=True, kw_only=True)
class Moments:
    """For each group of a layer's inputs, in float64: covariance (groups, d, d) of the inputs in
    the changed network, answers (groups, filters taps, d) between the filters' outputs in the
    reference and those inputs; d values under a filter, in the order of its weights.

    taps: 1, or the number of a filter's taps that are filters of their own here, of d = channels.
    """

    covariance: torch.Tensor
    answers: torch.Tensor
    taps: int = 1


@dataclass(frozen=True, kw_only=True)
class KeptOfLayer:
    """Which channels of the reference's layer the changed one has left: inputs (c_in,) and outputs
    (c_out,) bool."""

    inputs: torch.Tensor
    outputs: torch.Tensor


# What a layer's inputs were before and are now, for the same images.
BeforeAndNow = tuple[torch.Tensor, torch.Tensor]
# Moments on demand, and None where a filter is too long for them.
Inputs = Callable[[], Moments | None]
# {name of a node: (c,) bool}: which of the channels that it gives in the changed network are kept.
KeptByNode = Mapping[str, torch.Tensor]
# Called with a layer's name and inputs before the layer runs; may change the layer in the changed
# network, and its batch norm is followed up. Returns from which values in front of the layer
# channels were taken, None for none.
AtLayer = Callable[[str, Inputs], KeptByNode | None]
# Called with the name of a batch norm of the changed network once its statistics are those of the
# changed network.
AtNorm = Callable[[str], None]


def groups_of(layer: nn.Module) -> int:
    """How many groups of inputs the layer has."""
    return layer.groups if isinstance(layer, nn.Conv2d) else 1


def grouped_rows(layer: nn.Module, taps: int = 1) -> torch.Tensor:
    """The layer's weight as (groups, filters taps, d) in float64; taps as in Moments."""
    weight = layer.weight
    assert isinstance(weight, torch.Tensor)
    rows = weight.detach().reshape(groups_of(layer), -1, weight[0].numel() // taps, taps)
    return (rows.mT.flatten(1, 2) if taps > 1 else rows[..., 0]).double()


def whole_filters(rows: torch.Tensor, taps: int) -> torch.Tensor:
    """(groups, filters taps, d) as (filters, d taps), in the order of the weights."""
    return rows.reshape(-1, taps, rows.shape[-1]).mT.flatten(1) if taps > 1 else rows.flatten(0, 1)


def sample_moments(
    layer: nn.Module,
    read: Callable[[], Iterable[BeforeAndNow]],
    images: int,
    limit: int,
    kept: KeptOfLayer | None = None,
) -> Moments | None:
    """Moments of a layer from its inputs in both networks, (p, c, h, w) or (p, ..., d), less their
    means; None for a long filter.

    layer: the reference's. read: gives the inputs part by part, the same images in the same order;
    images: how many in all; limit: places that are used at most. kept: of the channels, where the
    changed layer has fewer.

    Summed up in float64 over a few images at a time, each channel moved to near zero first, so that
    float32 products lose nothing.
    """
    groups, length = groups_of(layer), layer.weight[0].numel()  # type: ignore[index]
    taps = taps_apart(layer)
    if length // taps > WIDEST:
        return None
    under, limit = layer if taps == 1 else None, min(limit, _VALUES * taps // length)
    rows = _tap_by_tap(grouped_rows(layer, taps), under)
    whole_groups = None
    if kept is not None:
        rows, whole_groups = _rows_left(layer, rows, taps, kept)
        groups = len(rows)
    # Filters that are fewer than their values are applied before the sum, which is the smaller for
    # it.
    filters = rows.float().mT if 2 * rows.shape[1] < rows.shape[2] else None
    own, between = _Covariance(), _Covariance()
    middles, step, together = list[torch.Tensor](), 1, 1
    for old, new in read():
        pair = (old if whole_groups is None else old[:, whole_groups], new)
        if not middles:
            middles = [
                x.mean((0, 2, 3)) if x.dim() == 4 else x.flatten(0, -2).mean(0) for x in pair
            ]
            step = _step(under, pair[0], images, limit)
            together = max(1, _AT_ONCE // patches(pair[0][:1], under, step, groups).numel())
        for parts in zip(*(torch.split(x, together) for x in pair), strict=True):
            one, two = (
                patches(x, under, step, groups, middle)
                for x, middle in zip(parts, middles, strict=True)
            )
            own.add(two, two)
            between.add(one if filters is None else one @ filters, two)
    answers = rows @ between.result() if filters is None else between.result()
    covariance = own.result()
    order = _tap_by_tap(torch.arange(covariance.shape[1]), under).argsort()
    if not torch.equal(order, order.sort().values):
        covariance, answers = covariance[:, order[:, None], order], answers[:, :, order]
    return Moments(covariance=covariance, answers=answers, taps=taps)


def taps_apart(layer: nn.Module) -> int:
    """How many taps of a filter are filters of their own in Moments: 1 unless filters are long."""
    assert isinstance(layer.weight, torch.Tensor)
    long = isinstance(layer, nn.Conv2d) and layer.weight[0].numel() > LONGEST
    return layer.weight[0, 0].numel() if long else 1


def _rows_left(
    layer: nn.Module, rows: torch.Tensor, taps: int, kept: KeptOfLayer
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Of the reference's rows (groups, filters taps, d) those of the filters that are left, and
    which channels a depthwise convolution still has: its groups are channels, and go whole."""
    whole = kept.inputs if is_depthwise(layer) else None
    groups = len(rows) if whole is None else int(whole.sum())
    left = rows.flatten(0, 1)[kept.outputs.repeat_interleave(taps)]
    return left.view(groups, -1, rows.shape[2]), whole


def _tap_by_tap(x: torch.Tensor, layer: nn.Module | None) -> torch.Tensor:
    """Values (..., d) of a filter, brought from the order of its weights into that of `patches`:
    all channels of a tap side by side."""
    taps = math.prod(layer.kernel_size) if isinstance(layer, nn.Conv2d) else 1
    return x.view(*x.shape[:-1], -1, taps).mT.flatten(-2)


class _Covariance:
    """Between samples (groups, places, a) and (groups, places, b) in float32, summed up in
    float64."""

    def __init__(self) -> None:
        self.total, self.sums, self.places, self.symmetric = (
            torch.zeros(()),
            [torch.zeros(())] * 2,
            0,
            False,
        )

    def add(self, left: torch.Tensor, right: torch.Tensor) -> None:
        """More places. Of samples with themselves only what is on or above the diagonal is summed
        up."""
        if not self.places:
            self.total = left.new_zeros(
                len(left), left.shape[2], right.shape[2], dtype=torch.float64
            )
            self.symmetric = left is right
        for rows, columns in self._blocks():
            self.total[:, rows, columns] += left[:, :, rows].mT @ right[:, :, columns]
        self.sums = [
            total + x.sum(1).double() for total, x in zip(self.sums, (left, right), strict=True)
        ]
        self.places += left.shape[1]

    def _blocks(self) -> Iterator[tuple[slice, slice]]:
        """Rows and columns that are summed up, so few at a time that the float32 product stays in
        the cache."""
        for start in range(0, self.total.shape[1], _ROWS):
            yield slice(start, start + _ROWS), slice(start if self.symmetric else 0, None)

    def result(self) -> torch.Tensor:
        """(groups, a, b), in place of the sums, which are gone."""
        if self.symmetric:
            for rows, columns in self._blocks():
                self.total[:, columns, rows] = self.total[:, rows, columns].mT.clone()
        one, two = (total / self.places for total in self.sums)
        result, self.total = self.total.div_(self.places), torch.zeros(())
        return result.baddbmm_(one[:, :, None], two[:, None], alpha=-1)


def patches(
    x: torch.Tensor,
    layer: nn.Module | None,
    step: int = 1,
    groups: int = 1,
    middle: torch.Tensor | None = None,
) -> torch.Tensor:
    """(groups, places, taps channels): what a filter sees at every `step`-th place of each image,
    less `middle` (channels,).

    None as layer: each pixel by itself.
    """
    if x.dim() != 4:
        values = x.flatten(0, -2)[None]
        return values.clone() if middle is None else values - middle
    layer = _filter(layer, x)
    pixels = padded(layer, x).permute(0, 2, 3, 1)
    pixels = pixels.contiguous() if middle is None else torch.sub(pixels, middle).contiguous()
    (down, across), wide = _corners(layer, pixels, step), pixels.shape[2]
    rows, columns = (
        d * torch.arange(k) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)
    )
    under = (down * wide + across)[:, None] + (rows[:, None] * wide + columns).flatten()
    values = (
        pixels.flatten(1, 2)
        .index_select(1, under.flatten())
        .view(len(x) * len(down), under.shape[1], groups, -1)
    )
    return values.permute(2, 0, 1, 3).reshape(groups, len(values), -1)


def _filter(layer: nn.Module | None, x: torch.Tensor) -> nn.Conv2d:
    return layer if isinstance(layer, nn.Conv2d) else nn.Conv2d(x.shape[1], 1, 1, device="meta")


def _plane(layer: nn.Conv2d, pixels: torch.Tensor) -> tuple[int, int]:
    """Places down and across that the filters are put to on padded images (n, h, w, c)."""
    sizes = zip(pixels.shape[1:3], layer.dilation, layer.kernel_size, layer.stride, strict=True)
    high, wide = ((size - d * (k - 1) - 1) // s + 1 for size, d, k, s in sizes)
    return high, wide


def _step(layer: nn.Module | None, x: torch.Tensor, images: int, limit: int) -> int:
    """Between the places that are looked at, for `limit` of them in all images together."""
    if x.dim() != 4:
        return 1
    layer = _filter(layer, x)
    high, wide = _plane(layer, padded(layer, x[:1]).permute(0, 2, 3, 1))
    return max(1, high * wide * images // limit)


def _corners(
    layer: nn.Conv2d, pixels: torch.Tensor, step: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows and columns of the first value under the filter at the places that are looked at, in
    each padded image."""
    high, wide = _plane(layer, pixels)
    places = torch.arange(0, high * wide, step)
    return places // wide * layer.stride[0], places % wide * layer.stride[1]
