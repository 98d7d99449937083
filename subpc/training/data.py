"""The images of a training, read from where a job names them."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from subpc.errors import ConfigError
from subpc.images.fashion_mnist import folder_named_by
from subpc.training.job import Job

if TYPE_CHECKING:
    from subpc.algorithms.subp.images import Images


@dataclass(frozen=True, kw_only=True)
class Data:
    """Images to train on and to test with, the names of the classes, and an image's shape (c, h,
    w)."""

    train: "Images"
    test: "Images"
    classes: tuple[str, ...]
    shape: tuple[int, int, int]


def read_data(job: Job) -> Data:
    """The images that `job.data` names; ConfigError says what is wrong with them."""
    if (installed := folder_named_by(job.data)) is not None:
        return _fashion_mnist(installed)
    kind, _, place = job.data.partition(":")
    if kind == "imagefolder" and place:
        return _image_folder(Path(place), job)
    raise ConfigError(
        f"data is {job.data!r}; fashion-mnist, fashion-mnist:FOLDER and imagefolder:FOLDER are"
        " accepted."
    )


def with_channels(data: Data, channels: int) -> Data:
    """Grey images as coloured ones for a network that takes three channels."""
    from subpc.algorithms.subp.images import InMemory

    if channels == data.shape[0]:
        return data
    if (
        data.shape[0] != 1
        or not isinstance(data.train, InMemory)
        or not isinstance(data.test, InMemory)
    ):
        raise ConfigError(
            f"The network takes {channels} channels, the images have {data.shape[0]}. Choose"
            " another architecture."
        )
    return replace(
        data,
        train=data.train.repeated(channels),
        test=data.test.repeated(channels),
        shape=(channels, *data.shape[1:]),
    )


def _fashion_mnist(folder: Path) -> Data:
    from subpc.algorithms.subp.images import InMemory
    from subpc.images.fashion_mnist import CLASSES, MEAN, STD, read_part

    train, test = (
        InMemory(*read_part(folder, part), mean=MEAN, std=STD) for part in ("train", "t10k")
    )
    if max(int(part.labels.max()) for part in (train, test)) >= len(CLASSES):
        raise ConfigError(
            f"{folder} has labels above {len(CLASSES) - 1}; Fashion-MNIST has {len(CLASSES)}"
            " classes."
        )
    _, channels, height, width = train.images.shape
    return Data(train=train, test=test, classes=CLASSES, shape=(channels, height, width))


def _image_folder(folder: Path, job: Job) -> Data:
    from subpc.images.folder import ImageFolder, find_parts
    from subpc.images.prepare import Preparation

    training, testing, names = find_parts(folder)
    how = Preparation(size=job.size)
    train, test = (
        ImageFolder(items, preparation=how, workers=job.workers) for items in (training, testing)
    )
    return Data(train=train, test=test, classes=tuple(names), shape=(3, job.size, job.size))
