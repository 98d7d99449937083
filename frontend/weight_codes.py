"""Weights that a file holds as whole numbers with scales: their values go through the passes, the
numbers travel beside them, for kernels that compute with whole numbers."""

from dataclasses import dataclass, replace

import numpy as np

from subpc.algorithms.numerics.quantizers import Quantized

# What integer kernels take.
LOWEST, LARGEST = -128, 127


@dataclass(frozen=True, kw_only=True)
class WeightCodes:
    """A weight is scales * codes, a scale for each place along `axis`.

    codes: whole numbers of the weight's shape, zero points taken off. scales: float32, (n,).
    """

    codes: np.ndarray
    scales: np.ndarray
    axis: int

    @property
    def obstacle(self) -> str:
        """Why integer kernels cannot take these codes; empty where they can."""
        low, high = int(self.codes.min(initial=0)), int(self.codes.max(initial=0))
        if low >= LOWEST and high <= LARGEST:
            return ""
        return f"codes from {low} to {high}, and kernels take {LOWEST} to {LARGEST}"

    def transposed(self, axes: tuple[int, ...]) -> "WeightCodes":
        """Those of the weight with its axes in another order."""
        return replace(
            self, codes=self.codes.transpose(axes), axis=axes.index(self.axis % self.codes.ndim)
        )


def weight_codes(
    stored: np.ndarray, scale: np.ndarray, zero_point: np.ndarray | int, axis: int
) -> WeightCodes | None:
    """Codes as a file stores them: less their zero points; None where there is not one scale and
    zero point for all, or one for each place along axis.

    stored: any shape. scale, zero_point: (), (1,) or (extent of axis,).
    """
    scales = np.asarray(scale, "float32").reshape(-1)
    zeros: np.ndarray = np.asarray(zero_point).reshape(-1)
    if not -stored.ndim <= axis < stored.ndim or 0 in stored.shape:
        return None
    axis %= stored.ndim
    extent = stored.shape[axis]
    if not {scales.size, zeros.size} <= {1, extent}:
        return None
    along = [extent if i == axis else 1 for i in range(stored.ndim)]
    zeros = np.broadcast_to(zeros.astype("int32"), (extent,)).reshape(along)
    codes = stored.astype("int32") - zeros
    small = codes.astype("int16")
    return WeightCodes(
        codes=small if np.array_equal(small, codes) else codes,
        scales=np.ascontiguousarray(np.broadcast_to(scales, (extent,))),
        axis=axis,
    )


def packed_codes(packed: Quantized) -> WeightCodes:
    """Those of a compressed file: whole numbers from -most / 2 to most / 2 where zero is a level,
    else odd ones from -most to most."""
    stored, most = packed.codes.numpy().astype("int16"), packed.most
    scale = packed.scale.detach().double().numpy()
    if packed.has_zero:
        codes, scale = stored - most // 2, scale / (most // 2)
    else:
        codes, scale = 2 * stored - most, scale / most
    scales = np.broadcast_to(scale.astype("float32"), (len(codes),))
    return WeightCodes(codes=codes, scales=np.ascontiguousarray(scales), axis=0)
