"""The images that a user calibrates with: a folder of files, a .npy file, an array."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from subpc.errors import ConfigError
from subpc.images.prepare import Preparation
from subpc.images.unlabelled import MAX_IMAGES, read_calibration
from subpc.progress import Progress, silent
from subpc.runtime.arrays import read_npy

ACCEPTED = "a folder of images, fashion-mnist[:FOLDER], or a .npy file of inputs"


def given_images(
    source: Any, shape: tuple[int, ...], how: Preparation | None = None, progress: Progress = silent
) -> Tensor:
    """Inputs (p, ...) float32 for a network with the input `shape` (n, ...), p a multiple of n.

    source: an array or tensor (p, ...), or the path of what ACCEPTED says. how: images become
    inputs; ImageNet's means and deviations without it. Of images, up to MAX_IMAGES are taken.

    Raises:
        ConfigError: nothing there, nothing readable, another shape, or values that are not finite.
    """
    if isinstance(source, str | Path) and Path(source).suffix not in (".npy", ".npz"):
        if len(shape) != 4:
            raise ConfigError(f"The network takes {shape}, which is no image; pass a .npy file.")
        given = read_calibration(str(source), shape, how or Preparation(), progress).images
        assert given is not None
        return _whole_batches(given, shape, str(source))
    array = read_npy(source) if isinstance(source, str | Path) else source
    name = str(source) if isinstance(source, str | Path) else "calibration"
    if isinstance(array, dict):
        raise ConfigError(f"{name} holds several arrays; {ACCEPTED} is accepted.")
    return _whole_batches(_tensor(array, shape, name), shape, name)


def _tensor(array: Any, shape: tuple[int, ...], name: str) -> Tensor:
    values = array.detach().cpu().numpy() if isinstance(array, Tensor) else np.asarray(array)
    if values.dtype.kind not in "fiu" or values.ndim != len(shape):
        raise ConfigError(
            f"{name} has the shape {values.shape} of {values.dtype}; numbers of the shape"
            f" (images, {', '.join(map(str, shape[1:]))}) are accepted."
        )
    if tuple(values.shape[1:]) != shape[1:]:
        raise ConfigError(
            f"{name} has the shape {values.shape}; the network takes"
            f" (images, {', '.join(map(str, shape[1:]))})."
        )
    images = torch.from_numpy(np.array(values[:MAX_IMAGES], "float32"))
    if not bool(torch.isfinite(images).all()):
        raise ConfigError(f"{name} holds values that are not finite; int8 needs finite ones.")
    return images


def _whole_batches(images: Tensor, shape: tuple[int, ...], name: str) -> Tensor:
    count = math.floor(len(images) / shape[0]) * shape[0]
    if count == 0:
        raise ConfigError(f"{name} holds {len(images)} images; {shape[0]} or more are needed.")
    return images[:count]
