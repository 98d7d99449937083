"""Pictures without labels for the data-free methods' options: from a folder, from Fashion-MNIST, or generated from the network."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subpc.errors import ConfigError
from subpc.images.prepare import Preparation
from subpc.library.report import TensorInfo
from subpc.progress import Progress

if TYPE_CHECKING:
    import torch
    from torch import nn

# More pictures tell batch norms nothing new, and 256 of 224x224 already take 154 MB.
MAX_PICTURES = 256
_MIN_PICTURES = 2


@dataclass(frozen=True, kw_only=True)
class Given:
    """Normalised pictures (p, c, h, w) or None, what a report says about them, and {file: why it was left out}."""

    pictures: "torch.Tensor | None" = None
    label: str = "none"
    skipped: dict[str, str] = field(default_factory=dict)


def read_calibration(source: str, shape: tuple[int, ...], how: Preparation, progress: Progress) -> Given:
    """Up to MAX_PICTURES pictures of `source`: a folder (with folders in it or not), or `fashion-mnist[:FOLDER]`.

    shape: (n, c, h, w) of the network's input. Files that cannot be read are left out, and named. ConfigError where nothing is left.
    """
    kind, _, place = source.partition(":")
    if kind == "fashion-mnist":
        return _fashion_mnist(Path(place) if place else None, shape, source)
    from subpc.images.folder import SUFFIXES, picture_files

    folder = Path(source)
    if not folder.is_dir():
        raise ConfigError(f"{source} is not a folder; a folder of pictures, or fashion-mnist[:FOLDER], is accepted.")
    files = _spread(picture_files(folder))
    if len(files) < _MIN_PICTURES:
        raise ConfigError(
            f"{source} holds {len(files)} pictures; {_MIN_PICTURES} or more are needed, a few hundred are good ({', '.join(SUFFIXES)})."
        )
    return _read(files, source, shape, how, progress)


def _read(files: Sequence[Path], source: str, shape: tuple[int, ...], how: Preparation, progress: Progress) -> Given:
    import torch

    pictures, skipped = [], {}
    for index, file in enumerate(files):
        progress("reading pictures", index, len(files))
        try:
            pictures.append(torch.from_numpy(read_picture(file, shape, how)))
        except ConfigError as error:
            skipped[str(file)] = str(error)
    if len(pictures) < _MIN_PICTURES:
        raise ConfigError(f"Of {len(files)} pictures in {source}, {len(skipped)} cannot be read, the first: {next(iter(skipped.values()))}")
    return Given(pictures=torch.cat(pictures), label=f"{len(pictures)} from {source}", skipped=skipped)


def _spread(files: Sequence[Path]) -> list[Path]:
    """At most MAX_PICTURES, evenly from the whole list, so that each class has its share."""
    count = min(len(files), MAX_PICTURES)
    return [files[i * len(files) // count] for i in range(count)]


def read_picture(path: str | Path, shape: tuple[int, ...], how: Preparation) -> Any:
    """(1, c, h, w) float32 of a picture for a network with that input; ConfigError for a file that is none.

    A square is cut as `Preparation` says; another shape is filled by stretching. Networks with one channel get the grey value,
    normalised with the first mean and deviation.
    """
    from subpc.images.input import picture_input

    _, channels, height, width = shape
    if channels not in (1, 3):
        raise ConfigError(f"The network takes {channels} channels; pictures have 1 or 3.")
    return picture_input(path, TensorInfo(name="input", shape=(1, channels, height, width)), how)


def _fashion_mnist(folder: Path | None, shape: tuple[int, ...], source: str) -> Given:
    import torch

    from subpc.images.fashion_mnist import INSTALLED, normalised, read_part

    images, _ = read_part(folder or INSTALLED, "train")
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:MAX_PICTURES]
    pictures = normalised(images[chosen]).expand(-1, shape[1], -1, -1)
    if pictures.shape[2:] != torch.Size(shape[2:]):
        raise ConfigError(
            f"The network takes {shape[3]}x{shape[2]} pixels, Fashion-MNIST has {pictures.shape[3]}x{pictures.shape[2]}. "
            "Pass --shape, or a folder of pictures."
        )
    return Given(pictures=pictures.contiguous(), label=f"{len(pictures)} from {source}")


def generate(model: "nn.Module", count: int, shape: tuple[int, ...], *, steps: int, seed: int, progress: Progress) -> Given:
    """`count` pictures made from the network alone: random shapes, matched to its batch norms where it has some."""
    from torch import nn

    from subpc.algorithms.images.matched_images import MAX_PICTURES as MOST
    from subpc.algorithms.images.matched_images import match
    from subpc.algorithms.images.random_images import random_shapes

    if not _MIN_PICTURES <= count <= MOST:
        raise ConfigError(f"{count} synthetic pictures; {_MIN_PICTURES} to {MOST} are accepted.")
    _, channels, height, width = shape
    pictures = random_shapes(count, channels, max(height, width), seed)[:, :, :height, :width].contiguous()
    matched = steps > 0 and any(isinstance(m, nn.BatchNorm2d) and m.running_var is not None for m in model.modules())
    if matched:
        pictures = match(model, pictures, steps, progress)
    return Given(pictures=pictures, label=f"{count} generated" + ("" if matched else " (random shapes: no batch norms to match)"))
