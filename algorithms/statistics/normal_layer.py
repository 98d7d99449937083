"""One layer with the field in front of it: the second moments of its inputs, and the field of its
outputs."""

from collections.abc import Callable

import torch
from torch import nn

from subpc.algorithms.network.batch_norm import mean_of
from subpc.algorithms.network.channels import is_depthwise
from subpc.algorithms.numerics.cholesky import steady_cholesky
from subpc.algorithms.statistics.filter_taps import Taps, fit_taps, one_tap
from subpc.algorithms.statistics.moments import LONGEST, WIDEST, Moments, grouped_rows, groups_of
from subpc.algorithms.statistics.normal_channels import PRECISION, Field, unknown_field

_TINY = 1e-12
# Share of the mean variance of the outputs that is added before their covariance is inverted.
_RIDGE = 1e-3


class LayerField:
    """A convolution or linear layer of the reference, the field in front of it, and the batch norm
    behind it or None.

    Where a batch norm is behind it, its mean and variance are known for each filter. The values
    that the filters see are moved and scaled along the filters, in the way that changes their law
    the least (in Kullback-Leibler divergence), so that each filter gives exactly those: with S the
    predicted covariance of the outputs y and S' the same scaled to the known variances, covariances
    of the inputs change by Cov(x, y) B Cov(y, x), B = S^-1 (S' - S) S^-1. Grouped convolutions are
    left without that step.
    """

    def __init__(self, layer: nn.Module, field: Field, norm: nn.BatchNorm2d | None) -> None:
        self.layer, self.field, self.depthwise = layer, field, is_depthwise(layer)
        self.rows = self._rows(layer)
        self.wanted = _wanted(layer, norm)
        self.taps, self.correlation = self._fit()
        self.update: tuple[torch.Tensor, torch.Tensor] | None = None
        if (
            self.wanted is not None
            and groups_of(layer) == 1
            and len(self.rows) <= self.rows[0].numel()
        ):
            self.update = self._condition(*self.wanted)

    def keep(self, kept: torch.Tensor) -> None:
        """From now on the changed layer takes only these of its input channels."""
        self.field = self.field.keep(kept)

    def moments(self) -> Moments | None:
        """The second moments of the layer's inputs; None where a filter is too long."""
        groups, length = groups_of(self.layer), self.layer.weight[0].numel()  # type: ignore[index]
        taps = self.rows.shape[2] if length > LONGEST else 1
        if length // taps > WIDEST:
            return None
        (_, own), cross, means = self.field.own, self.field.cross, self.field.means
        if groups > 1:
            index = torch.arange(len(own)).view(groups, -1)
            return self._moments(
                self._blocks(own, (means[1], means[1]), index), self._blocks(cross, means, index)
            )
        if taps > 1:
            return self._moments(own[None], cross[None], taps)
        covariance, between = (
            self.taps.dense(own, (means[1], means[1])),
            self.taps.dense(cross, means),
        )
        if self.update is not None:
            seen, old = (
                self._seen(cross, means),
                self._seen(self.field.own[0], (means[0], means[0])),
            )
            covariance.addmm_(seen.T, self.update[0] @ seen)
            between.addmm_(old.T, self.update[0] @ seen)
        return self._moments(covariance[None], between[None])

    def _moments(self, covariance: torch.Tensor, between: torch.Tensor, taps: int = 1) -> Moments:
        """From the covariances (groups, d, d) of what is seen now, and of what was seen before with
        it."""
        return Moments(
            covariance=covariance.clone(),
            answers=grouped_rows(self.layer, taps) @ between,
            taps=taps,
        )

    def outputs(self, changed: nn.Module) -> Field:
        """The field of the outputs of the layer and of `changed`, its counterpart."""
        rows, new = self.rows, self._rows(changed)
        if rows.shape[1] > WIDEST:
            return unknown_field(len(rows))
        (first, second), cross, means = self.field.own, self.field.cross, self.field.means
        own = self._project(rows, rows, first, (means[0], means[0]))
        between = self._project(rows, new, cross, means)
        other = self._project(new, new, second, (means[1], means[1]))
        middles = [self._mean(r, m) for r, m in ((rows, means[0]), (new, means[1]))]
        if self.update is not None:
            inner, lacking = self.update
            middles = [middles[0] + own @ lacking, middles[1] + between.T @ lacking]
            other = other + between.T @ inner @ between
            between = between + own @ inner @ between
            own = own + own @ inner @ own
        offsets = [getattr(layer, "bias", None) for layer in (self.layer, changed)]
        middles = [
            m if b is None else m + b.detach() for m, b in zip(middles, offsets, strict=True)
        ]
        # Rounding errors that break the symmetry would grow from layer to layer.
        return Field(
            means=(middles[0], middles[1]),
            own=((own + own.T) / 2, (other + other.T) / 2),
            cross=between,
        )

    def _rows(self, layer: nn.Module) -> torch.Tensor:
        """(out, c, taps), (out, 1, taps) where depthwise; other grouped convolutions with their
        zeros."""
        assert isinstance(layer.weight, torch.Tensor)
        weight = layer.weight.detach().to(PRECISION)
        if not isinstance(layer, nn.Conv2d):
            side = 0 if layer is self.layer else 1
            channels = len(self.field.means[side])
            return (
                weight.view(len(weight), channels, -1)
                if weight.shape[1] % channels == 0
                else weight[:, :, None]
            )
        weight = weight.flatten(2)
        if layer.groups == 1 or self.depthwise:
            return weight
        parts = weight.view(layer.groups, -1, *weight.shape[1:])
        diagonal: Callable[..., torch.Tensor] = torch.block_diag
        return torch.stack([diagonal(*parts[..., tap]) for tap in range(weight.shape[2])], 2)

    def _fit(self) -> tuple[Taps, float]:
        if not isinstance(self.layer, nn.Conv2d):
            return one_tap(self.rows.shape[2]), 0.5
        covariance, mean, rows = self.field.own[0], self.field.means[0], self.rows.mT
        if self.depthwise:
            source = self._sources(len(rows))
            across, left = (
                rows * mean[source, None, None],
                rows * covariance.diagonal()[source, None, None],
            )
        else:
            across, left = rows @ mean[:, None], rows @ covariance
        return fit_taps(self.layer, across[..., 0], left @ self.rows, self.wanted)

    def _sources(self, filters: int) -> torch.Tensor:
        """The input channel of each filter of a depthwise convolution."""
        channels = len(self.field.means[0])
        return torch.arange(channels).repeat_interleave(filters // channels)

    def _mean(self, rows: torch.Tensor, means: torch.Tensor) -> torch.Tensor:
        across = rows @ self.taps.inside
        return across[:, 0] * means[self._sources(len(rows))] if self.depthwise else across @ means

    def _project(
        self,
        left: torch.Tensor,
        right: torch.Tensor,
        covariance: torch.Tensor,
        means: tuple[torch.Tensor, torch.Tensor],
    ) -> torch.Tensor:
        """left Cov right^T, (out, out')."""
        if not self.depthwise:
            return self.taps.times(left, covariance, means) @ right.flatten(1).T
        one, two = self._sources(len(left)), self._sources(len(right))
        left, right = left[:, 0], right[:, 0]
        result = covariance[one][:, two] * (left @ self.taps.together @ right.T)
        return result + torch.outer(means[0][one], means[1][two]) * (
            left @ self.taps.border @ right.T
        )

    def _seen(
        self, covariance: torch.Tensor, means: tuple[torch.Tensor, torch.Tensor]
    ) -> torch.Tensor:
        """Cov(y, x), (out, c taps), for the outputs of the reference."""
        return self.taps.times(self.rows, covariance, means)

    def _blocks(
        self,
        covariance: torch.Tensor,
        means: tuple[torch.Tensor, torch.Tensor],
        index: torch.Tensor,
    ) -> torch.Tensor:
        return torch.stack(
            [self.taps.dense(covariance[i][:, i], (means[0][i], means[1][i])) for i in index]
        )

    def _condition(
        self, mean: torch.Tensor, variance: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """B, and S^-1 times what the means of the outputs lack."""
        predicted = self._project(
            self.rows, self.rows, self.field.own[0], (self.field.means[0], self.field.means[0])
        )
        change = (variance.clamp(min=_TINY) / predicted.diagonal().clamp(min=_TINY)).sqrt()
        target = change[:, None] * predicted * change
        steady = predicted.clone()
        steady.diagonal().add_(_RIDGE * predicted.diagonal().mean() + _TINY)
        inverse = torch.cholesky_inverse(steady_cholesky(steady))
        lacking = mean - self._mean(self.rows, self.field.means[0])
        return inverse @ (target - predicted) @ inverse, inverse @ lacking


def _wanted(
    layer: nn.Module, norm: nn.BatchNorm2d | None
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Mean and variance of the layer without its offset."""
    if norm is None or norm.running_var is None or not isinstance(layer, nn.Conv2d):
        return None
    return mean_of(norm, layer).to(PRECISION), norm.running_var.detach().to(PRECISION)
