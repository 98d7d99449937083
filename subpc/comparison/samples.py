"""Samples to compare two models on: an array file, a folder of images, or random numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from subpc.errors import ConfigError
from subpc.images.folder import SUFFIXES
from subpc.images.input import image_input
from subpc.images.prepare import Preparation
from subpc.library.report import TensorInfo
from subpc.runtime.arrays import read_npy
from subpc.runtime.random_inputs import random_inputs

Array = npt.NDArray[Any]
# Random samples, where none were given: enough for a mean, and quick.
RANDOM_SAMPLES = 8


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Arrays with the samples along their first axis, one an input, and where they came from."""

    arrays: tuple[Array, ...]
    source: str

    @property
    def count(self) -> int:
        """How many samples."""
        return int(self.arrays[0].shape[0])

    def batches(self, size: int, limit: int | None = None) -> list[tuple[tuple[Array, ...], int]]:
        """(arrays of `size` samples, how many of them count) for all or the first `limit` samples;
        the last batch repeats its last."""
        count = min(self.count, limit or self.count)
        found = []
        for start in range(0, count, size):
            rows = np.minimum(np.arange(start, start + size), count - 1)
            found.append(
                (
                    tuple(np.ascontiguousarray(a[rows]) for a in self.arrays),
                    min(size, count - start),
                )
            )
        return found


def read_arrays(path: Path, limit: int) -> Samples:
    """A .npy file, or an .npz file with one array an input."""
    loaded = read_npy(path)
    arrays = list(loaded.values()) if isinstance(loaded, dict) else [loaded]
    if not arrays or any(
        a.ndim < 1 or a.shape[0] != arrays[0].shape[0] or a.shape[0] == 0 for a in arrays
    ):
        raise ConfigError(
            f"{path} holds no samples along its first axis; write arrays of shape (samples, ...)"
        )
    return Samples(
        arrays=tuple(a[:limit] for a in arrays),
        source=f"{path.name}, {min(limit, arrays[0].shape[0])} samples",
    )


def read_folder(folder: Path, info: TensorInfo, preparation: Preparation, limit: int) -> Samples:
    """The first images under `folder`, by name; files that Pillow cannot read are counted in
    `source`."""
    files = sorted(
        path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()
    )
    if not files:
        raise ConfigError(
            f"{folder} holds no images ({', '.join(SUFFIXES)}); give a folder with some, or an"
            " array with --data x.npy"
        )
    images: list[Array] = []
    unreadable = 0
    for path in files:
        if len(images) == limit:
            break
        try:
            images.append(image_input(path, info, preparation))
        except ConfigError:
            unreadable += 1
    if not images:
        raise ConfigError(
            f"none of the {len(files)} images in {folder} can be read; give PNG or JPEG files"
        )
    remark = f", {unreadable} unreadable" if unreadable else ""
    return Samples(
        arrays=(np.concatenate(images),), source=f"{folder}, {len(images)} images{remark}"
    )


def check_types(samples: Samples, shapes: Sequence[tuple[int, ...]], path: Path) -> None:
    """ConfigError unless there is an array of the right type for each input."""
    if len(samples.arrays) != len(shapes):
        raise ConfigError(
            f"{path} holds {len(samples.arrays)} arrays, the models take {len(shapes)} inputs;"
            " write one for each"
        )
    for array, shape in zip(samples.arrays, shapes, strict=True):
        if array.dtype != np.dtype(dtype_of(shape)):
            raise ConfigError(
                f"{path} is {array.dtype}, models take {dtype_of(shape)}; convert it with"
                f" x.astype('{dtype_of(shape)}')"
            )


def dtype_of(shape: tuple[int, ...]) -> str:
    """The element type that belongs to a shape, float32 where it says none."""
    return getattr(shape, "dtype", "") or "float32"


def random_samples(shapes: Sequence[tuple[int, ...]]) -> Samples:
    """Seeded random numbers of these shapes, (n, ...) each; errors on them say less than errors on
    images."""
    count = max(RANDOM_SAMPLES, shapes[0][0])
    infos = [
        TensorInfo(name="", shape=(count, *shape[1:]), dtype=dtype_of(shape)) for shape in shapes
    ]
    arrays = tuple(random_inputs(infos))
    return Samples(
        arrays=arrays,
        source=f"random numbers, {count} samples: give --data for errors that mean something",
    )
