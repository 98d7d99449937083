"""Seeded inputs for a network, where none are given."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from subpc.library.report import TensorInfo

# Bytes of an image; class numbers, masks and switches are 0 or 1 to be valid in any network.
_HIGHEST = {"uint8": 255}


def random_inputs(infos: Sequence[TensorInfo]) -> list[npt.NDArray[Any]]:
    """An array of the shape and type of each of `infos`, the same in every call.

    Normal numbers, bytes from 0 to 255, zeros and ones of other types.
    """
    generator = np.random.default_rng(0)
    return [_random(info, generator) for info in infos]


def _random(info: TensorInfo, generator: np.random.Generator) -> npt.NDArray[Any]:
    if info.dtype.startswith("float"):
        return np.asarray(generator.standard_normal(info.shape)).astype(info.dtype)
    return np.asarray(
        generator.integers(0, _HIGHEST.get(info.dtype, 1), info.shape, endpoint=True)
    ).astype(info.dtype)
