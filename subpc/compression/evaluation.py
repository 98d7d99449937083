"""How many labelled images a network gets right: from a folder a class, or Fashion-MNIST."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from subpc.errors import ConfigError
from subpc.images.fashion_mnist import folder_named_by
from subpc.images.prepare import Preparation
from subpc.images.unlabelled import read_sized_image
from subpc.progress import Progress

if TYPE_CHECKING:
    import torch
    from torch import nn

    Batch = tuple[torch.Tensor, torch.Tensor]

_BATCH = 64
# Images that are kept after the first reading (2 GiB of floats); what is beyond is read again each
# time.
_MAX_KEPT = 1 << 29


class Evaluation:
    """Labelled images of `source` for a network with inputs of `shape`; called with a network it
    gives its accuracy in per cent.

    source: a folder with a folder for each class in the order of the names (or folders named by
    class numbers), perhaps in a part `val` or `test`; or `fashion-mnist[:FOLDER]`. skipped: {file:
    why} of those that cannot be read. ConfigError says what is wrong.
    """

    def __init__(self, source: str, shape: tuple[int, ...], how: Preparation) -> None:
        self.source, self.shape, self.how = source, shape, how
        self.skipped: dict[str, str] = {}
        self._kept: list[Batch] = []
        self._items: list[tuple[str, int]] = []
        self.names: list[str] = []
        if (installed := folder_named_by(source)) is not None:
            self._take_fashion_mnist(installed)
        else:
            self.names, self._items = labelled_files(Path(source))

    def __call__(self, model: "nn.Module", progress: Progress | None = None) -> float:
        import torch

        right, seen = 0, 0
        with torch.no_grad():
            for images, labels in self._batches(progress):
                scores = model(images)
                right += int((scores.argmax(1) == labels).sum())
                seen += len(labels)
        if seen == 0:
            raise ConfigError(
                f"No image of {self.source} can be read, the first:"
                f" {next(iter(self.skipped.values()))}"
            )
        return 100 * right / seen

    def check(self, model: "nn.Module") -> None:
        """ConfigError unless the network gives a score for each class."""
        import torch

        with torch.no_grad():
            scores = model(torch.zeros(1, *self.shape[1:]))
        classes = (
            scores.shape[1] if isinstance(scores, torch.Tensor) and scores.dim() == 2 else None
        )
        if classes is None:
            got = (
                tuple(scores.shape)
                if isinstance(scores, torch.Tensor)
                else f"{len(scores)} results"
            )
            raise ConfigError(
                f"The network gives {got} for one image; --eval needs (1, classes), a score for"
                " each class."
            )
        numbers = _numbers(self.names)
        if numbers is not None and max(numbers) < classes and self._items:
            self._items = [(file, numbers[label]) for file, label in self._items]
        elif len(self.names) != classes:
            raise ConfigError(
                f"The network has {classes} classes, {self.source} has {len(self.names)}"
                " folders.\nPass a folder for each class in the network's order, or name the"
                " folders by class numbers (0, 1, ...)."
            )

    def _batches(self, progress: Progress | None) -> "Iterator[Batch]":
        import torch

        if self._kept:
            yield from self._kept
            return
        batches: list[Batch] = []
        for start in range(0, len(self._items), _BATCH):
            if progress is not None:
                progress("reading labelled images", start, len(self._items))
            rows = [
                row
                for row in map(self._row, self._items[start : start + _BATCH])
                if row is not None
            ]
            if rows:
                batches.append(
                    (
                        torch.cat([image for image, _ in rows]),
                        torch.tensor([label for _, label in rows]),
                    )
                )
                yield batches[-1]
            if sum(images.numel() for images, _ in batches) > _MAX_KEPT:
                batches.clear()
        if len(batches) == -(-len(self._items) // _BATCH):
            self._kept = batches

    def _row(self, item: tuple[str, int]) -> "tuple[torch.Tensor, int] | None":
        import torch

        file, label = item
        try:
            return torch.from_numpy(read_sized_image(file, self.shape, self.how)), label
        except ConfigError as error:
            self.skipped[file] = str(error)
            return None

    def _take_fashion_mnist(self, folder: Path) -> None:
        import torch

        from subpc.images.fashion_mnist import CLASSES, normalised, read_part

        pixels, labels = read_part(folder, "t10k")
        if pixels.shape[2:] != torch.Size(self.shape[2:]):
            raise ConfigError(
                f"The network takes {self.shape[3]}x{self.shape[2]} pixels, Fashion-MNIST has"
                " 28x28. Pass --shape."
            )
        images = normalised(pixels).expand(-1, self.shape[1], -1, -1)
        self.names = list(CLASSES)
        self._kept = list(
            zip(torch.split(images, _BATCH), torch.split(labels, _BATCH), strict=True)
        )


def labelled_files(folder: Path) -> tuple[list[str], list[tuple[str, int]]]:
    """Class names, and (file, class) of every image; of the part `val` or `test` where the folder
    has one."""
    from subpc.images.folder import TEST_PARTS, class_items

    part = next((folder / name for name in TEST_PARTS if os.path.isdir(folder / name)), folder)
    return class_items(part)


def _numbers(names: list[str]) -> list[int] | None:
    """The folders' names as class numbers, where all are."""
    return (
        [int(name) for name in names] if names and all(name.isdecimal() for name in names) else None
    )
