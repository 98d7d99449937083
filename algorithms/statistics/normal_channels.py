"""The values of two networks at one place as normal variables: the reference and its changed copy,
without an image."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from subpc.algorithms.numerics.hermite import Function, covariance_behind, expand

# float32 was tried: it halves the memory, and rounding then costs a deep network tens of points.
PRECISION = torch.float64
# One tensor of the reference, one of the changed network.
OfBoth = tuple[torch.Tensor, torch.Tensor]
# Mean and variance of the largest of 4 and of 9 independent standard normal values.
_LARGEST = {4: (1.0294, 0.4917), 9: (1.4850, 0.3574)}


@dataclass(frozen=True, kw_only=True)
class Field:
    """Channels as normal variables that are alike at every pixel.

    means: (c,) of the reference and (c',) of the changed network; own: their covariances (c, c) and
    (c', c'); cross (c, c'): between the two.
    """

    means: OfBoth
    own: OfBoth
    cross: torch.Tensor

    def scaled(self, gains: OfBoth, shifts: OfBoth) -> "Field":
        """gain x + shift, channel by channel."""
        means = (gains[0] * self.means[0] + shifts[0], gains[1] * self.means[1] + shifts[1])
        own = (
            gains[0][:, None] * self.own[0] * gains[0],
            gains[1][:, None] * self.own[1] * gains[1],
        )
        return Field(means=means, own=own, cross=gains[0][:, None] * self.cross * gains[1])

    def through(self, function: Function) -> "Field":
        """f(x), channel by channel, taken as normal again."""
        first, second = (
            expand(function, mean, own.diagonal())
            for mean, own in zip(self.means, self.own, strict=True)
        )
        own = (
            covariance_behind(first, first, self.own[0]),
            covariance_behind(second, second, self.own[1]),
        )
        return Field(
            means=(first.mean, second.mean),
            own=own,
            cross=covariance_behind(first, second, self.cross),
        )

    def keep(self, kept: torch.Tensor) -> "Field":
        """Without the channels of the changed network that `kept` (c',) does not mark."""
        own = (self.own[0], self.own[1][kept][:, kept])
        return Field(means=(self.means[0], self.means[1][kept]), own=own, cross=self.cross[:, kept])

    def largest(self, window: int, correlation: float) -> "Field":
        """Maximum over `window` pixels of which any two have this correlation: x = sqrt(r) shared +
        sqrt(1 - r) own."""
        nearest = min(_LARGEST, key=lambda known: abs(known - window))
        mean, variance = _LARGEST[nearest]
        raised = tuple(
            m + math.sqrt(1 - correlation) * mean * c.diagonal().sqrt()
            for m, c in zip(self.means, self.own, strict=True)
        )
        share = correlation + (1 - correlation) * variance
        return Field(
            means=(raised[0], raised[1]),
            own=(share * self.own[0], share * self.own[1]),
            cross=share * self.cross,
        )


def add(fields: Sequence[Field]) -> Field:
    """The sum of branches, taken as independent of each other."""

    def total(kind: str, side: int) -> torch.Tensor:
        return functools.reduce(torch.add, _side(fields, kind, side))

    return Field(
        means=(total("means", 0), total("means", 1)),
        own=(total("own", 0), total("own", 1)),
        cross=functools.reduce(torch.add, (field.cross for field in fields)),
    )


def concatenated(fields: Sequence[Field]) -> Field:
    """Channels side by side, those of different branches taken as independent."""
    means = tuple(torch.cat(_side(fields, "means", side)) for side in (0, 1))
    own = tuple(_diagonal(_side(fields, "own", side)) for side in (0, 1))
    return Field(
        means=(means[0], means[1]), own=(own[0], own[1]), cross=_diagonal([f.cross for f in fields])
    )


def _diagonal(blocks: Sequence[torch.Tensor]) -> torch.Tensor:
    result: torch.Tensor = torch.block_diag(*blocks)  # type: ignore[no-untyped-call]
    return result


def _side(fields: Sequence[Field], kind: str, side: int) -> list[torch.Tensor]:
    return [getattr(field, kind)[side] for field in fields]


def images_field(channels: int) -> Field:
    """Normalised images: mean 0, variance 1, colours with a correlation of 0.9, as natural images
    have about."""
    covariance = 0.9 * torch.ones(channels, channels, dtype=PRECISION) + 0.1 * torch.eye(
        channels, dtype=PRECISION
    )
    zero = torch.zeros(channels, dtype=PRECISION)
    return Field(means=(zero, zero), own=(covariance, covariance), cross=covariance)


def unknown_field(channels: int) -> Field:
    """Channels of which nothing is known: independent, alike in both networks."""
    one, zero = torch.eye(channels, dtype=PRECISION), torch.zeros(channels, dtype=PRECISION)
    return Field(means=(zero, zero), own=(one, one), cross=one)
