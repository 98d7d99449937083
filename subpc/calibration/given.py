"""Images that a user calibrates with: a folder of them, a file of arrays, or an array."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from subpc.errors import ConfigError
from subpc.images.fashion_mnist import folder_named_by
from subpc.images.prepare import Preparation
from subpc.images.unlabelled import MAX_IMAGES, Given, read_calibration
from subpc.progress import Progress, silent
from subpc.runtime.arrays import read_npy
from subpc.text import first_line

_ACCEPTED = "a folder of images, fashion-mnist[:FOLDER], a .npy file, or an array"


def calibration_images(
    source: Any, shape: tuple[int, ...], how: Preparation, progress: Progress = silent
) -> Given:
    """Inputs (p, ...) float32 for a network with the input `shape` (n, ...), p a multiple of n, at
    most 256 of them but n.

    source: a folder or `fashion-mnist[:FOLDER]`, whose images are prepared as `how` says; a .npy
    file or an array, whose values are taken as they are. ConfigError for anything else.
    """
    if not isinstance(source, str | Path):
        found = Given(images=_array(source, shape, "the array"), label="an array")
    elif Path(source).suffix in (".npy", ".npz") and folder_named_by(str(source)) is None:
        array = read_npy(source)
        if isinstance(array, dict):
            raise ConfigError(
                f"{source} holds {len(array)} arrays by name; one is needed: numpy.save('x.npy', x)"
            )
        found = Given(images=_array(array, shape, str(source)), label=str(source))
    else:
        if len(shape) != 4:
            raise ConfigError(
                f"the network's input is {shape}, which is no image; give a .npy file with inputs"
            )
        found = read_calibration(str(source), shape, replace(how, size=shape[3]), progress)
    assert found.images is not None
    return replace(found, images=_batches(found.images, shape[0]))


def _array(value: Any, shape: tuple[int, ...], name: str) -> Tensor:
    try:
        array = np.asarray(_plain(value) if isinstance(value, Tensor) else value)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ConfigError(
            f"calibration={type(value).__name__} holds no plain numbers ({first_line(error)});"
            f" accepted: {_ACCEPTED}"
        ) from error
    if array.dtype.kind not in "fiu" or array.ndim == 0:
        raise ConfigError(
            f"calibration: {name} holds {array.dtype} of shape {array.shape}; accepted: {_ACCEPTED}"
        )
    if array.shape[1:] != shape[1:] or not len(array):
        raise ConfigError(
            f"calibration: {name} has the shape {array.shape}; the network takes {shape}, so"
            f" (images, {', '.join(map(str, shape[1:]))}) is needed"
        )
    array = array[:: max(1, -(-len(array) // MAX_IMAGES))]
    with np.errstate(over="ignore"):  # what no float32 holds becomes infinite, and is refused
        array = np.ascontiguousarray(array, "float32")
    if not np.isfinite(array).all():
        raise ConfigError(f"calibration: {name} holds values that are not finite in float32")
    return torch.from_numpy(array)


def _plain(tensor: Tensor) -> Tensor:
    """The tensor in a type that NumPy has."""
    return tensor.detach().float() if tensor.is_floating_point() else tensor.detach()


def _batches(images: Tensor, batch: int) -> Tensor:
    """The images as whole batches: the last ones are left out, or the first are repeated."""
    if len(images) < batch:
        return images.repeat(-(-batch // len(images)), *(1,) * (images.dim() - 1))[:batch]
    return images[: len(images) // batch * batch]
