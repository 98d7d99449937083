"""Statistics of tensors, taken batch by batch, and the quantization that fits them best."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from subpc.errors import ConfigError
from subpc.schedules.quantization import LARGEST_CODE, Quantization

_BINS = 2048
# So many values of an image's tensor go into the histogram; the extremes are of all of them.
_COUNTED = 1 << 16
# What "percentile" leaves out on each side.
_LEFT_OUT = 1e-4
# Shares of the whole range that "mse" and "entropy" try on each side.
_SHARES = np.linspace(0.05, 1.0, 96)
# Far below what any network computes; smaller scales have no finite reciprocal.
_SMALLEST_SCALE = 1e-30


class TensorStatistics:
    """Extremes and a histogram of a tensor's values, and extremes and means of its channels (axis
    1).

    The histogram has 2048 bins; where values fall outside, pairs of bins become one until they
    fit, so that what was counted stays exact.
    """

    def __init__(self) -> None:
        self.low, self.high = 0.0, 0.0
        self.channel_low = self.channel_high = self._sums = torch.zeros(0)
        self.values = 0
        self._counts = np.zeros(_BINS)
        self._start, self._width = 0.0, 0.0

    @property
    def channel_mean(self) -> Tensor:
        """(C,) float64."""
        return self._sums * (len(self._sums) / max(self.values, 1))

    def add(self, x: Tensor) -> None:
        """Take in a batch (n, C, ...). ConfigError for values that are not finite."""
        low, high = (float(bound) for bound in torch.aminmax(x))
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ConfigError("values that are not finite")
        self._add_channels(x.transpose(0, 1).flatten(1) if x.dim() > 1 else x[None])
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.values += x.numel()
        self._count(x.reshape(-1))

    def _add_channels(self, rows: Tensor) -> None:
        low, high = torch.aminmax(rows, dim=1)
        sums = rows.sum(1, dtype=torch.float64)
        if self.values:
            low, high = torch.minimum(self.channel_low, low), torch.maximum(self.channel_high, high)
            sums = self._sums + sums
        self.channel_low, self.channel_high, self._sums = low, high, sums

    def _count(self, x: Tensor) -> None:
        self._fit()
        x = x[:: max(1, len(x) // _COUNTED)]
        if self._width > 0:
            end = self._start + _BINS * self._width
            self._counts += torch.histc(x.float(), _BINS, self._start, end).numpy()

    def _fit(self) -> None:
        """Let the histogram reach from `low` to `high`."""
        if self._width == 0:
            self._start, self._width = self.low, (self.high - self.low) / _BINS
        while self._width > 0 and self.high > self._start + _BINS * self._width:
            self._counts = np.concatenate([self._pairs(), np.zeros(_BINS // 2)])
            self._width *= 2
        while self._width > 0 and self.low < self._start:
            self._counts = np.concatenate([np.zeros(_BINS // 2), self._pairs()])
            self._start -= _BINS * self._width
            self._width *= 2

    def _pairs(self) -> np.ndarray:
        sums: np.ndarray = self._counts.reshape(-1, 2).sum(1)
        return sums

    def histogram(self) -> tuple[np.ndarray, np.ndarray]:
        """Centres of the bins, and how many values are in each."""
        centres = self._start + self._width * (np.arange(_BINS) + 0.5)
        return np.clip(centres, self.low, self.high), self._counts

    def merge(self, other: "TensorStatistics") -> "TensorStatistics":
        """What both have seen; channels are those of neither."""
        merged = TensorStatistics()
        merged.low, merged.high = min(self.low, other.low), max(self.high, other.high)
        merged.values = self.values + other.values
        merged._start, merged._width = merged.low, (merged.high - merged.low) / _BINS
        for part in (self, other):
            if merged._width > 0:
                centres, counts = part.histogram()
                where = ((centres - merged._start) / merged._width).astype(int)
                np.add.at(merged._counts, where.clip(0, _BINS - 1), counts)
        return merged


def between(low: float, high: float) -> Quantization:
    """Codes for values from `low` to `high`, and for zero, which is one of them exactly."""
    low, high = min(low, 0.0), max(high, 0.0)
    if high == low:
        return Quantization(scale=1.0, zero_point=0)
    scale = max((high - low) / LARGEST_CODE, _SMALLEST_SCALE)
    return Quantization(scale=scale, zero_point=round(-low / scale))


def _all(statistics: TensorStatistics) -> Quantization:
    return between(statistics.low, statistics.high)


def _percentile(statistics: TensorStatistics) -> Quantization:
    centres, counts = statistics.histogram()
    if not counts.any():
        return _all(statistics)
    reached = np.cumsum(counts) / counts.sum()
    low, high = (centres[np.searchsorted(reached, share)] for share in (_LEFT_OUT, 1 - _LEFT_OUT))
    return between(float(low), float(high))


def _least(
    statistics: TensorStatistics, cost: Callable[[np.ndarray, np.ndarray, Quantization], float]
) -> Quantization:
    """The range of least cost: first the upper end is moved, then the lower one, then the upper one
    again."""
    centres, counts = statistics.histogram()
    filled = counts > 0
    centres, counts = centres[filled], counts[filled]
    if not filled.any():
        return _all(statistics)
    low, high = statistics.low, statistics.high

    def tried(ends: list[tuple[float, float]]) -> tuple[float, float]:
        return min(ends, key=lambda end: cost(centres, counts, between(*end)))

    for _ in range(2 if low < 0 else 1):
        low, high = tried([(low, statistics.high * share) for share in _SHARES])
        if low < 0:
            low, high = tried([(statistics.low * share, high) for share in _SHARES])
    return between(low, high)


def _squared_error(centres: np.ndarray, counts: np.ndarray, q: Quantization) -> float:
    errors = q.values(q.codes(centres)) - centres
    return float(counts @ (errors * errors))


def _divergence(centres: np.ndarray, counts: np.ndarray, q: Quantization) -> float:
    """Kullback-Leibler divergence between the values, those outside of the range moved to its ends,
    and what is left of the ones inside when those of one code are spread evenly over their bins."""
    codes = q.codes(centres).astype(int)
    inside = np.abs(q.values(codes) - centres) <= q.scale
    if not inside.any():
        return np.inf
    moved = np.where(inside, counts, 0)
    first, last = np.flatnonzero(inside)[[0, -1]]
    moved[first] += counts[:first].sum()
    moved[last] += counts[last + 1 :].sum()
    mass = np.bincount(codes[inside], counts[inside], LARGEST_CODE + 1)
    bins = np.bincount(codes[inside], minlength=LARGEST_CODE + 1)
    spread = mass[codes[inside]] / bins[codes[inside]]
    share, left = moved[inside] / moved.sum(), spread / spread.sum()
    return float((share * np.log(share / left)).sum())


METHODS: dict[str, Callable[[TensorStatistics], Quantization]] = {
    "min-max": _all,
    "percentile": _percentile,
    "mse": lambda statistics: _least(statistics, _squared_error),
    "entropy": lambda statistics: _least(statistics, _divergence),
}
DEFAULT_METHOD = "mse"
