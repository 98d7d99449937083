"""What follows the whole sums of a layer on codes, in NumPy: the same float32 steps one by one."""

import numpy as np

from subpc.schedules.quantization import LARGEST_CODE
from subpc.schedules.requantize import HIGH, INVERSE, LOW, RESIDUAL, ZERO, Levels, Requantize


def fma(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """float32 a * b + c, rounded once: exact in float64 but for the last sum's own rounding."""
    return (a.astype("float64") * b.astype("float64") + c.astype("float64")).astype("float32")


def requantized(
    sums: np.ndarray,
    levels: Levels,
    epilogue: Requantize,
    residual: np.ndarray | None = None,
    axis: int = 1,
) -> np.ndarray:
    """Codes or float32 of int32 sums whose filters lie along `axis`."""
    shape = [1] * sums.ndim
    shape[axis] = -1
    multiplier, bias = levels.multiplier.reshape(shape), levels.bias.reshape(shape)
    value = fma(sums.astype("float32"), multiplier, bias)
    if residual is not None:
        folded = levels.levels[INVERSE] if epilogue.folded else np.float32(1)
        scale = levels.levels[RESIDUAL] if epilogue.residual_codes else folded
        value = fma(residual, scale, value)
    if not epilogue.folded:
        value = {
            "none": lambda v: v,
            "relu": lambda v: np.maximum(v, 0),
            "leaky_relu": lambda v: (
                np.maximum(v, 0) + np.float32(epilogue.activation.slope) * np.minimum(v, 0)
            ),
        }[epilogue.activation.kind](value)
    if not epilogue.codes:
        return value
    if not epilogue.folded:
        value = value * levels.levels[INVERSE]
    if epilogue.limited:
        value = np.clip(value, levels.levels[LOW], levels.levels[HIGH])
    codes = np.rint(value) + levels.levels[ZERO]
    return np.clip(codes, 0, LARGEST_CODE).astype("uint8")
