"""Where labelled images come from: the interface that training needs, and images in memory."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F

from subpc.errors import ConfigError

Batch = tuple[torch.Tensor, torch.Tensor]
TEST_BATCH = 250


class Images(Protocol):
    """Labelled images. Batches are float images (n, c, h, w), normalised, and int64 labels (n), on
    the CPU."""

    labels: torch.Tensor
    skipped: dict[str, str]

    def training(self, batches: Sequence[torch.Tensor], seed: int) -> Iterator[Batch]:
        """The images of each index tensor, augmented by draws that depend on `seed` and the image's
        index alone."""
        ...

    def plain(self, indices: torch.Tensor) -> Iterator[Batch]:
        """The images as they are, in batches."""
        ...


class InMemory:
    """Images (n, c, h, w) uint8 and labels (n) int64; augmented by a crop after padding with `crop`
    zeros, and by mirroring.

    mean, std: of the pixels, scaled to 0 to 1. Raises ConfigError for tensors of other types or
    sizes.
    """

    def __init__(
        self, images: torch.Tensor, labels: torch.Tensor, *, mean: float, std: float, crop: int = 2
    ) -> None:
        if images.dim() != 4 or images.dtype != torch.uint8 or len(images) != len(labels):
            raise ConfigError(
                f"Images {tuple(images.shape)} {images.dtype} with {len(labels)} labels; accepted:"
                " (n, c, h, w) uint8, n labels."
            )
        if not 0 <= crop <= 64 or not 0 < std < float("inf"):
            raise ConfigError(
                f"crop is {crop} and std {std}; a crop of 0 to 64 and a positive std are accepted."
            )
        self.images, self.labels, self.skipped = images, labels, dict[str, str]()
        self._mean, self._std, self._crop = mean, std, crop

    def training(self, batches: Sequence[torch.Tensor], seed: int) -> Iterator[Batch]:
        """See Images."""
        draws = draw(len(self.labels), self._crop, torch.Generator().manual_seed(seed))
        for batch in batches:
            tops, lefts, mirrored = (values[batch] for values in draws)
            yield (
                self._scaled(augment(self.images[batch], self._crop, (tops, lefts, mirrored))),
                self.labels[batch],
            )

    def plain(self, indices: torch.Tensor) -> Iterator[Batch]:
        """See Images."""
        for batch in torch.split(indices, TEST_BATCH):
            yield self._scaled(self.images[batch]), self.labels[batch]

    def repeated(self, channels: int) -> "InMemory":
        """Grey images with the same values in each of `channels` channels."""
        images = self.images.expand(-1, channels, -1, -1)
        return InMemory(images, self.labels, mean=self._mean, std=self._std, crop=self._crop)

    def _scaled(self, images: torch.Tensor) -> torch.Tensor:
        return (images.float() / 255 - self._mean) / self._std


Draws = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def draw(count: int, crop: int, generator: torch.Generator) -> Draws:
    """Top and left corners (count) of crops, and whether to mirror."""
    tops, lefts = torch.randint(0, 2 * crop + 1, (2, count), generator=generator)
    return tops, lefts, torch.rand(count, generator=generator) < 0.5


def augment(images: torch.Tensor, crop: int, draws: Draws) -> torch.Tensor:
    """Each image of (n, c, h, w) padded with `crop` zeros, cut to (h, w) at its corner, and
    mirrored where its draw says so."""
    tops, lefts, mirrored = (values[:, None] for values in draws)
    count, _, height, width = images.shape
    columns = torch.arange(width)
    rows = tops + torch.arange(height)
    columns = lefts + torch.where(mirrored, columns.flip(0), columns)
    padded = F.pad(images, (crop, crop, crop, crop)).permute(0, 2, 3, 1)
    return padded[
        torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]
    ].permute(0, 3, 1, 2)
