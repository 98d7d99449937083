"""Labelled images from a folder a class, read and augmented by worker processes; unreadable files
are skipped and named."""

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from subpc.errors import ConfigError
from subpc.images.prepare import Preparation, read_image
from subpc.worker import end_with_parent

if TYPE_CHECKING:
    import torch

    from subpc.algorithms.subp.images import Batch

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
TRAIN_PARTS, TEST_PARTS = ("train",), ("val", "valid", "validation", "test")
# Without folders of their own, every tenth image of a class is kept for the test.
_HELD_OUT = 10
# So many unreadable images in a row are no accident.
_MAX_IN_A_ROW = 16
_PLAIN_BATCH = 64

Item = tuple[str, int]


class ImageFolder:
    """Images of `items`, (file, class) each; ConfigError where that is nothing, or where nothing
    can be read.

    Training images are cut to a random part (8 to 100 % of the area), scaled to preparation.size
    and mirrored at random, by draws that depend on seed and index alone. An unreadable file is
    named in `skipped`; the next readable one takes its place in training, so that every process of
    a team makes the same number of steps.
    """

    def __init__(self, items: Sequence[Item], *, preparation: Preparation, workers: int) -> None:
        import torch

        self.items, self.preparation, self.workers = tuple(items), preparation, workers
        self.labels = torch.tensor([label for _, label in items], dtype=torch.int64)
        self.skipped: dict[str, str] = {}

    def training(self, batches: "Sequence[torch.Tensor]", seed: int) -> "Iterator[Batch]":
        """See algorithms.subp.images.Images."""
        return self._load([batch.tolist() for batch in batches], seed)

    def plain(self, indices: "torch.Tensor") -> "Iterator[Batch]":
        """See algorithms.subp.images.Images."""
        import torch

        return self._load([part.tolist() for part in torch.split(indices, _PLAIN_BATCH)], None)

    def _load(self, batches: list[list[int]], seed: int | None) -> "Iterator[Batch]":
        import torch
        from torch.utils.data import DataLoader

        reader = _Reader(self.items, self.preparation, seed)
        options: dict[str, Any] = {"batch_sampler": batches, "collate_fn": list}
        if self.workers and can_share():
            options |= {"num_workers": self.workers, "worker_init_fn": _Ends(os.getpid())}
        # What a loader needs of a data set, it has: __len__ and __getitem__.
        loader: DataLoader[Any] = DataLoader(reader, **options)  # type: ignore[arg-type]
        for rows in loader:
            for _, _, failures in rows:
                self.skipped.update(failures)
            good = [(image, label) for image, label, _ in rows if image is not None]
            if good:
                yield (
                    torch.stack([torch.from_numpy(image) for image, _ in good]),
                    torch.tensor([label for _, label in good]),
                )


class _Ends:
    """Called at the start of a worker of process `parent`: the worker ends with it."""

    def __init__(self, parent: int) -> None:
        self.parent = parent

    def __call__(self, worker: int) -> None:
        end_with_parent(self.parent)


def can_share() -> bool:
    """Whether this system lets processes wait for one another; without /dev/shm it does not, and
    images are read by this process."""
    try:
        multiprocessing.Semaphore()
    except OSError:
        return False
    return True


class _Reader:
    """What worker processes hold: index -> (image or None, label, {file: why it could not be
    read})."""

    def __init__(self, items: tuple[Item, ...], preparation: Preparation, seed: int | None) -> None:
        self.items, self.preparation, self.seed = items, preparation, seed

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Any, int, dict[str, str]]:
        failures: dict[str, str] = {}
        for offset in range(_MAX_IN_A_ROW if self.seed is not None else 1):
            path, label = self.items[(index + offset) % len(self.items)]
            try:
                return self._read(path, index), label, failures
            except ConfigError as error:
                failures[path] = str(error)
        if self.seed is not None:
            raise ConfigError(
                f"{len(failures)} images in a row cannot be read, the first:"
                f" {next(iter(failures.values()))}"
            )
        return None, -1, failures

    def _read(self, path: str, index: int) -> Any:
        if self.seed is None:
            return read_image(path, self.preparation)[0]
        return _augmented(path, self.preparation, (self.seed << 24) + index)


def _augmented(path: str, how: Preparation, seed: int) -> Any:
    """A random part of the image, (3, size, size) float32."""
    import torch

    from subpc.frontend.architectures.torchvision_import import import_torchvision
    from subpc.images.prepare import normalised, open_rgb

    import_torchvision()
    from torchvision.transforms import RandomHorizontalFlip, RandomResizedCrop

    image = open_rgb(path)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        image = RandomHorizontalFlip()(RandomResizedCrop(how.size)(image))
    return normalised(np.asarray(image), how)[0]


def find_parts(folder: Path) -> tuple[list[Item], list[Item], list[str]]:
    """Training items, test items and class names of `folder`; ConfigError says what is missing.

    The folder has a part `train` and a part `val` or `test`, each with a folder a class; or has the
    classes itself, of which every tenth image is kept for the test.
    """
    train = _first(folder, TRAIN_PARTS)
    test = _first(folder, TEST_PARTS)
    if train is None or test is None:
        names, items = class_items(folder)
        held = [
            item
            for label in range(len(names))
            for item in [i for i in items if i[1] == label][_HELD_OUT - 1 :: _HELD_OUT]
        ]
        return [item for item in items if item not in set(held)], held, names
    strange = sorted(set(_class_names(train)) ^ set(_class_names(test)))
    if strange:
        raise ConfigError(
            f"{train} and {test} have different classes, such as {', '.join(strange[:3])}; both"
            " need the same folders."
        )
    (names, items), (_, tests) = class_items(train), class_items(test)
    return items, tests, names


def _first(folder: Path, names: Sequence[str]) -> Path | None:
    return next((folder / name for name in names if os.path.isdir(folder / name)), None)


def _class_names(folder: Path) -> list[str]:
    if not os.path.isdir(folder):
        raise ConfigError(
            f"{folder} is not a folder; a folder with a folder of images for each class is"
            " accepted."
        )
    return sorted(
        entry.name
        for entry in folder.iterdir()
        if entry.is_dir() and not entry.name.startswith(".")
    )


def class_items(folder: Path) -> tuple[list[str], list[Item]]:
    """Class names, and (file, class) of every image, of a folder with a folder for each class;
    ConfigError says what is missing."""
    names = _class_names(folder)
    items = [
        (str(path), label)
        for label, name in enumerate(names)
        for path in image_files(folder / name)
    ]
    filled = {label for _, label in items}
    empty = [name for label, name in enumerate(names) if label not in filled]
    if empty:
        raise ConfigError(
            f"{folder / empty[0]} holds no images ({', '.join(SUFFIXES)}); add some, or remove the"
            " class."
        )
    if len(names) < 2:
        found = f"one class ({names[0]})" if names else "no class folders"
        raise ConfigError(
            f"{folder} has {found}; two or more folders, each with the images of a class, are"
            " accepted."
        )
    return names, items


def image_files(folder: Path) -> list[Path]:
    """The images in a folder and the folders in it, by name."""
    return sorted(
        path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()
    )
