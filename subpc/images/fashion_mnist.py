"""Fashion-MNIST from its four idx files, packed or not, as tensors in memory."""

import gzip
import math
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from subpc.errors import ConfigError

if TYPE_CHECKING:
    import torch

# Where the Debian package dataset-fashion-mnist puts its files.
INSTALLED = Path("/usr/share/datasets/fashion-mnist")
MEAN, STD = 0.2860, 0.3530
CLASSES = (
    "T-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
_MAX_BYTES = 1 << 30


def folder_named_by(source: str) -> Path | None:
    """The folder with the files that `fashion-mnist` or `fashion-mnist:FOLDER` names; None for a
    source of another kind."""
    kind, _, place = source.partition(":")
    if kind != "fashion-mnist":
        return None
    return Path(place) if place else INSTALLED


def read_idx(path: Path) -> "torch.Tensor":
    """An idx file of bytes, `.gz` or plain, as uint8 of the shape in its head; ConfigError if it is
    not one."""
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            data = file.read(_MAX_BYTES)
    except (OSError, EOFError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.") from error
    if len(data) < 4 or data[:3] != b"\0\0\x08" or len(data) < 4 + 4 * data[3]:
        raise ConfigError(
            f"{path} is not an idx file of bytes. The files of the Debian package"
            " dataset-fashion-mnist are accepted."
        )
    shape = struct.unpack(f">{data[3]}I", data[4 : 4 + 4 * data[3]])
    body = data[4 + 4 * data[3] :]
    if len(body) != math.prod(shape):
        raise ConfigError(
            f"{path} holds {len(body)} values instead of {math.prod(shape)}; it is cut off or"
            " damaged."
        )
    import torch

    return torch.from_numpy(np.frombuffer(body, np.uint8).reshape(shape).copy())


def read_part(folder: Path, part: str) -> "tuple[torch.Tensor, torch.Tensor]":
    """Images (n, 1, 28, 28) uint8 and labels (n) int64 of the part "train" or "t10k" in
    `folder`."""
    images = read_idx(_find(folder, f"{part}-images-idx3-ubyte")).unsqueeze(1)
    labels = read_idx(_find(folder, f"{part}-labels-idx1-ubyte")).long()
    if images.dim() != 4 or labels.dim() != 1 or len(images) != len(labels) or len(labels) == 0:
        raise ConfigError(
            f"{folder}: {tuple(images.shape)} images and {tuple(labels.shape)} labels do not belong"
            " together."
        )
    return images, labels


def normalised(images: "torch.Tensor") -> "torch.Tensor":
    """Images (n, 1, 28, 28) uint8 as float32 with mean 0 and deviation 1 over the training
    images."""
    return (images.float() / 255 - MEAN) / STD


def _find(folder: Path, name: str) -> Path:
    for path in (folder / f"{name}.gz", folder / name):
        if os.path.isfile(path):
            return path
    raise ConfigError(
        f"{folder} has no {name}[.gz]. Install the Debian package dataset-fashion-mnist, or pass"
        " the folder of its files."
    )
