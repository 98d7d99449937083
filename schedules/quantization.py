"""What a byte stands for."""

from dataclasses import dataclass

import numpy as np

# Codes of activations are unsigned bytes.
CODES = "uint8"
LARGEST_CODE = 255


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """A code q, 0 .. 255, stands for scale * (q - zero_point). Signed codes of a file are the same
    with 128 more in code and zero point.

    Raises:
        ValueError: a scale that is not a positive float32, a zero point outside the codes.
    """

    scale: float
    zero_point: int

    def __post_init__(self) -> None:
        scale = np.float32(self.scale)
        if not (np.isfinite(scale) and scale > 0):
            raise ValueError(f"a scale of {self.scale}; it has to be positive and finite")
        if not 0 <= self.zero_point <= LARGEST_CODE:
            raise ValueError(f"a zero point of {self.zero_point}; accepted: 0 to {LARGEST_CODE}")
        object.__setattr__(self, "scale", float(scale))

    def codes(self, values: np.ndarray) -> np.ndarray:
        """float values of any shape, rounded half to even, as uint8 codes of the same shape; what
        is not a number becomes the zero point."""
        real = np.nan_to_num(values.astype("float64") / self.scale, nan=0.0)
        codes: np.ndarray = np.clip(np.rint(real) + self.zero_point, 0, LARGEST_CODE).astype(CODES)
        return codes

    def values(self, codes: np.ndarray) -> np.ndarray:
        """What codes stand for, float64."""
        real: np.ndarray = codes.astype("float64") - self.zero_point
        return self.scale * real
