"""What a network says of an image: the best classes, how many pixels each class has, or the sizes
of what it gives."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from subpc.errors import ConfigError
from subpc.images.prepare import best_classes

Array = npt.NDArray[Any]
# A PNG file holds so many classes.
_MOST_CLASSES = 256


@dataclass(frozen=True, kw_only=True)
class Seen:
    """classes: (index, name, probability) of the best; pixels: (index, name, share of the image);
    output: which one they are from.

    mask: (height, width) class of every pixel. All are empty where no output is a row of scores or
    a map of the image.
    """

    output: str = ""
    classes: tuple[tuple[int, str, float], ...] = ()
    pixels: tuple[tuple[int, str, float], ...] = ()
    mask: Array | None = None


def look(
    outputs: Mapping[str, Array], labels: Sequence[str] | None, top: int, *, last: bool = False
) -> Seen:
    """What the first output that is about classes says of the first image of a batch.

    outputs: {name: array}; scores are (n, classes), maps of scores (n, classes, h, w), or
    (n, h, w, classes) with `last`.
    """
    for name, array in outputs.items():
        values = array[0] if array.ndim > 1 else array
        row = values.reshape(-1) if values.size == max(values.shape, default=0) else None
        if row is not None and row.size > 1 and row.dtype.kind == "f":
            return Seen(output=name, classes=tuple(best_classes(row, labels, top)))
        mask = _mask(values, last)
        if mask is not None:
            return Seen(output=name, pixels=_shares(mask, labels, top), mask=mask)
    return Seen()


def _mask(values: Array, last: bool) -> Array | None:
    """The class of each pixel of one image; None where `values` is no map."""
    if values.ndim == 3:
        values = np.moveaxis(values, -1, 0) if last else values
        if values.dtype.kind != "f":
            values = values[0] if len(values) == 1 else values
        elif min(values.shape[1:]) > 1:
            return values.argmax(axis=0) if len(values) > 1 else _above(values[0])
    if values.ndim == 2 and min(values.shape) > 1 and values.dtype.kind in "iub":
        return values.astype(np.int64)
    return None


def _above(values: Array) -> Array:
    """A map of one channel: probabilities above one half, or scores above zero."""
    likely = values.min() >= 0 and values.max() <= 1
    return (values > (0.5 if likely else 0.0)).astype(np.int64)


def _shares(
    mask: Array, labels: Sequence[str] | None, top: int
) -> tuple[tuple[int, str, float], ...]:
    classes, counts = np.unique(mask, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:top]
    return tuple(
        (int(classes[i]), _label(labels, int(classes[i])), float(counts[i] / mask.size))
        for i in order
    )


def _label(labels: Sequence[str] | None, index: int) -> str:
    return labels[index] if labels is not None and 0 <= index < len(labels) else f"class {index}"


def summary(name: str, array: Array) -> str:
    """`boxes: float32[1, 100, 4], from 0 to 1`."""
    shape = f"{name}: {array.dtype}{list(array.shape)}"
    return (
        f"{shape}, from {float(array.min()):.6g} to {float(array.max()):.6g}"
        if array.size
        else shape
    )


def save_mask(mask: Array | None, path: Path) -> None:
    """Write classes (height, width) as a PNG file: the value of a pixel is its class, shown in a
    colour of its own."""
    from PIL import Image

    from subpc.files import replacing

    if mask is None:
        raise ConfigError(
            "the model gives no map of the image, so there is no mask to write; leave out --mask"
        )
    if mask.min() < 0 or mask.max() >= _MOST_CLASSES:
        raise ConfigError(
            f"the mask has classes up to {int(mask.max())}; a PNG file holds 0 to"
            f" {_MOST_CLASSES - 1}. Use -o FILE.npy"
        )
    image = Image.fromarray(mask.astype(np.uint8), "P")
    image.putpalette([value for index in range(_MOST_CLASSES) for value in _colour(index)])
    with replacing(path) as file:
        image.save(file, format="PNG")


def _colour(index: int) -> tuple[int, int, int]:
    """The colours of the PASCAL VOC data set: bits 0, 3, 6 of the number are the high bits of red,
    and so on."""
    red = green = blue = 0
    for place in range(8):
        red |= (index >> (3 * place) & 1) << (7 - place)
        green |= (index >> (3 * place + 1) & 1) << (7 - place)
        blue |= (index >> (3 * place + 2) & 1) << (7 - place)
    return red, green, blue
