"""The paper's compensation: one coefficient for each channel, equation 27, folded into the batch
norm."""

import math
from dataclasses import dataclass

import torch
from torch import nn

from subpc.algorithms.dfmpc.config import DfmpcConfig
from subpc.algorithms.network.batch_norm import gain_shift, recalibrate
from subpc.algorithms.network.pairing import LayerPair
from subpc.algorithms.numerics.quantizers import Quantized, quantize_ternary, quantize_uniform
from subpc.algorithms.report import LayerResult

_TINY = 1e-30
# Filters whose errors are computed together.
_TOGETHER = 64


def quantize(weight: torch.Tensor, bits: int, *, per_channel: bool) -> Quantized:
    """Codes of a weight of any shape, out first: ternary at 2 bits, uniform above (section 3.1 of
    the paper)."""
    return (
        quantize_ternary(weight, per_channel=per_channel)
        if bits == 2
        else quantize_uniform(weight, bits, per_channel=per_channel)
    )


def relative_error(old: torch.Tensor, codes: Quantized) -> float:
    """|new - old| / |old| of a weight (out, ...) and the one that the codes stand for, a few
    filters at a time."""
    few = [torch.arange(len(old)) // _TOGETHER == i for i in range(math.ceil(len(old) / _TOGETHER))]
    lost = sum(
        float((codes.keep(kept).dequantize() - old[kept]).double().square().sum()) for kept in few
    )
    return math.sqrt(lost) / max(float(old.norm()), _TINY)


@dataclass(frozen=True, kw_only=True)
class _Part:
    """A layer's weight with the gain and the shift (c,) of the batch norm behind it, in float64."""

    weight: torch.Tensor
    gain: torch.Tensor
    shift: torch.Tensor

    def rows(self, few: slice = slice(None)) -> torch.Tensor:
        """x: the filters, or a few of them, times their gain, (c, d) in float64."""
        return self.weight[few].double().flatten(1).mul_(self.gain[few, None])

    def error(self, new: "_Part", scale: torch.Tensor) -> float:
        """|scale x' - x| / |x| with x' of the `new` part and scale (c,); a few filters at a
        time."""
        lost = all_of_it = 0.0
        for i in range(0, len(self.gain), _TOGETHER):
            few = slice(i, i + _TOGETHER)
            rows = self.rows(few)
            all_of_it += float(rows.norm() ** 2)
            lost += float(rows.sub_(new.rows(few).mul_(scale[few, None])).norm() ** 2)
        return math.sqrt(lost / max(all_of_it, _TINY**2))


class Scalar:
    """Remembers what each pair's batch norm gave before its layer was quantized, and scales what it
    gives afterwards."""

    def __init__(
        self,
        modules: dict[str, nn.Module],
        config: DfmpcConfig,
        pairs: tuple[LayerPair, ...],
        results: dict[str, LayerResult],
    ) -> None:
        self.modules, self.config, self.results = modules, config, results
        self.pairs = {pair.first: pair for pair in pairs}
        self.by_norm = {pair.norm: pair for pair in pairs}
        self.old: dict[str, _Part] = {}

    def before(self, name: str) -> None:
        """Remember what gives x and y of the low layer `name`; nothing for other layers."""
        if name in self.pairs:
            self.old[name] = self._part(self.pairs[name])

    def recalibrate(self, name: str, new: torch.Tensor) -> None:
        """Set the statistics behind the low layer `name` by the norms of its filters, if the
        settings say so; new: (out, in, kh, kw)."""
        conv, norm = self._parts(self.pairs[name])
        if self.config.recalibration == "norm-ratio":
            recalibrate(norm, conv.weight, new, None)

    def at_norm(self, norm_name: str) -> None:
        """Fold the coefficients into the batch norm of this name, which is a pair's, if the
        settings say so."""
        pair = self.by_norm[norm_name]
        if pair.first not in self.old:
            return
        old, new = self.old.pop(pair.first), self._part(pair)
        result = self.results[pair.first]
        result.error_before = result.error_after = old.error(new, torch.ones_like(new.gain))
        _, norm = self._parts(pair)
        if self.config.compensation != "scalar":
            return
        if pair.activation != "relu" or norm.weight is None:
            why = (
                "ReLU6 is not homogeneous"
                if norm.weight is not None
                else "batch norm without scale"
            )
            result.reason = f"no coefficient: {why}"
            return
        options = {"lambda1": self.config.lambda1, "lambda2": self.config.lambda2}
        found = solve_scalars(
            old.rows(), old.shift, new.rows(), new.shift, clamp=self.config.clamp, **options
        )
        norm.weight.mul_(found.float())
        norm.bias.mul_(found.float())
        result.error_after = old.error(new, found)
        result.coefficients = (float(found.min()), float(found.max()))

    def _parts(self, pair: LayerPair) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
        conv, norm = self.modules[pair.first], self.modules[pair.norm]
        assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
        return conv, norm

    def _part(self, pair: LayerPair) -> _Part:
        conv, norm = self._parts(pair)
        gain, shift = gain_shift(conv, norm)
        return _Part(weight=conv.weight.detach(), gain=gain, shift=shift)


def solve_scalars(
    rows: torch.Tensor,
    shift: torch.Tensor,
    new_rows: torch.Tensor,
    new_shift: torch.Tensor,
    *,
    lambda1: float,
    lambda2: float,
    clamp: bool,
) -> torch.Tensor:
    """c (channels,) in float64: the minimiser of |c x' - x|^2 + lambda1 (c y' - y)^2 + lambda2 c^2.

    rows x and new_rows x' (channels, d): filters times the gain of their batch norm, before and
    after quantization; shift y and new_shift y' (channels,): what the batch norm adds. 1 where the
    quantized channel is zero and nothing can be solved.
    """
    top = (new_rows * rows).sum(1) + lambda1 * new_shift * shift
    bottom = (new_rows**2).sum(1) + lambda1 * new_shift**2 + lambda2
    found = torch.where(bottom > _TINY, top / bottom.clamp(min=_TINY), torch.ones_like(top))
    return found.clamp(min=0) if clamp else found
