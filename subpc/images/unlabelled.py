"""Images without labels, as a network takes them: from a folder, or from Fashion-MNIST."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subpc.errors import ConfigError
from subpc.images.fashion_mnist import folder_named_by
from subpc.images.prepare import Preparation
from subpc.library.report import TensorInfo
from subpc.progress import Progress

if TYPE_CHECKING:
    import torch

    from subpc.images.input import Layout

# More images tell batch norms nothing new, and 256 of 224x224 already take 154 MB.
MAX_IMAGES = 256
# Numbers of all of them (1 GiB), where a network takes such images that 256 would be more.
_VALUES = 1 << 28
MIN_IMAGES = 2
# What notes on images that were left out start with, and how many of them are named.
SKIPPED = "skipped "
_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class Given:
    """Normalised images (p, c, h, w) or None, what a report says about them, and {file: why it was
    left out}."""

    images: "torch.Tensor | None" = None
    label: str = "none"
    skipped: dict[str, str] = field(default_factory=dict)


def skipped_notes(files: Mapping[str, str]) -> list[str]:
    """Notes on images that could not be read, {file: why}: the first few by name."""
    notes = [
        f"{SKIPPED}{reason if file in reason else f'{file}: {reason}'}"
        for file, reason in list(files.items())[:_NAMED]
    ]
    return notes + ([f"{SKIPPED}{len(files) - _NAMED} more images"] if len(files) > _NAMED else [])


def read_calibration(
    source: str,
    info: TensorInfo,
    how: Preparation,
    progress: Progress,
    *,
    most: int = MAX_IMAGES,
) -> Given:
    """Up to `most` images of `source`: a folder (with folders in it or not), or
    `fashion-mnist[:FOLDER]`.

    info: the network's input, images (n, c, h, w) or (n, h, w, c) of floats or bytes.
    Files that cannot be read are left out, and named. ConfigError where nothing is left.
    """
    if (installed := folder_named_by(source)) is not None:
        return _fashion_mnist(installed, info, source, most)
    from subpc.images.folder import SUFFIXES, image_files

    _layout(info, source)
    folder = Path(source)
    if not os.path.isdir(folder):
        raise ConfigError(
            f"{source} is not a folder; a folder of images, or fashion-mnist[:FOLDER], is accepted."
        )
    room = _VALUES // math.prod(info.shape[1:])
    files = _spread(image_files(folder), min(most, max(room, MIN_IMAGES)))
    if len(files) < MIN_IMAGES:
        raise ConfigError(
            f"{source} holds {len(files)} images; {MIN_IMAGES} or more are needed, a few hundred"
            f" are good ({', '.join(SUFFIXES)})."
        )
    return _read(files, source, info, how, progress)


def _read(
    files: Sequence[Path], source: str, info: TensorInfo, how: Preparation, progress: Progress
) -> Given:
    import torch

    from subpc.images.input import image_input

    images, skipped, one = [], {}, replace(info, shape=(1, *info.shape[1:]))
    for index, file in enumerate(files):
        progress("reading images", index, len(files))
        try:
            images.append(torch.from_numpy(image_input(file, one, how)))
        except ConfigError as error:
            skipped[str(file)] = str(error)
    if len(images) < MIN_IMAGES:
        raise ConfigError(
            f"Of {len(files)} images in {source}, {len(skipped)} cannot be read, the first:"
            f" {next(iter(skipped.values()))}"
        )
    return Given(images=torch.cat(images), label=f"{len(images)} from {source}", skipped=skipped)


def _spread(files: Sequence[Path], most: int) -> list[Path]:
    """At most so many, evenly from the whole list, so that each class has its share."""
    count = min(len(files), most)
    return [files[i * len(files) // count] for i in range(count)]


def read_sized_image(path: str | Path, shape: tuple[int, ...], how: Preparation) -> Any:
    """(1, c, h, w) float32 of an image for a network with that input; ConfigError for a file that
    is none.

    A square is cut as `Preparation` says; another shape is filled by stretching. Networks with one
    channel get the grey value, normalised with the first mean and deviation.
    """
    from subpc.images.input import image_input

    _, channels, height, width = shape
    if channels not in (1, 3):
        raise ConfigError(f"The network takes {channels} channels; images have 1 or 3.")
    return image_input(path, TensorInfo(name="input", shape=(1, channels, height, width)), how)


def _fashion_mnist(folder: Path, info: TensorInfo, source: str, most: int) -> Given:
    import torch

    from subpc.images.fashion_mnist import normalised, read_part

    pixels, _ = read_part(folder, "train")
    chosen = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))[:most]
    images, layout = pixels[chosen], _layout(info, source)
    images = normalised(images) if info.dtype.startswith("float") else images
    if images.shape[2:] != (layout.height, layout.width):
        raise ConfigError(
            f"The network takes {layout.width}x{layout.height} pixels, Fashion-MNIST has"
            f" {images.shape[3]}x{images.shape[2]}. Pass --shape, or a folder of images."
        )
    images = images.expand(-1, layout.channels, -1, -1)
    images = images.permute(0, 2, 3, 1) if layout.last else images
    return Given(images=images.contiguous(), label=f"{len(images)} from {source}")


def _layout(info: TensorInfo, source: str) -> "Layout":
    from subpc.images.input import layout_of

    try:
        return layout_of(info)
    except ConfigError as error:
        raise ConfigError(
            f"{source} holds images, and the network's input {info.name} is {info.shape}; accepted"
            " are (n, channels, height, width) and (n, height, width, channels) with 1, 3 or 4"
            " channels."
        ) from error
