"""The input that an architecture was designed for: taken where nobody gives a shape, and said."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from subpc.frontend.architectures.torchvision_import import import_torchvision

# Classifiers for ImageNet take it where they say nothing else.
_USUAL = 224
# The nets of frontend/architectures/small_nets.py: grey images are those of MNIST and its like,
# coloured ones those of CIFAR.
_SMALL = {1: 28, 3: 32}


def default_shape(arch: str, module: nn.Module) -> tuple[int, ...]:
    """(1, channels, side, side) of torchvision's, timm's and our own architectures; () for
    functions of the user's own.

    () also for architectures that take no single image: detection, video, optical flow.
    """
    conv = next(
        (m for m in module.modules() if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d)), None
    )
    if not isinstance(conv, nn.Conv2d):
        return ()
    source, _, name = arch.rpartition(":")
    channels = conv.in_channels
    side = 0
    if source in ("", "torchvision"):
        side = _torchvision_side(name, module)
    elif source == "timm":
        side = _timm_side(module)
    elif source == "subpc":
        side = _SMALL.get(channels, 32)
    return (1, channels, side, side) if side else ()


def _torchvision_side(name: str, module: nn.Module) -> int:
    """The crop of the pretrained weights, or what scenes are scaled to for segmentation; 0 where
    there is neither."""
    built: Any = getattr(module, "image_size", 0)  # vision transformers take no other
    if isinstance(built, int) and built:
        return built
    models = import_torchvision().models
    try:
        weights = getattr(models.get_model_weights(name), "DEFAULT", None)
    except ValueError:  # an architecture without weights
        return _USUAL
    if weights is None:
        return _USUAL
    transforms = weights.transforms()
    sizes: Any = getattr(transforms, "crop_size", None) or getattr(transforms, "resize_size", None)
    return int(sizes[0]) if sizes else 0


def _timm_side(module: nn.Module) -> int:
    settings = getattr(module, "pretrained_cfg", None) or getattr(module, "default_cfg", None) or {}
    size = settings.get("input_size")
    return int(size[1]) if size else _USUAL


def assumed(arch: str, shape: tuple[int, ...]) -> str:
    """The note that says so."""
    return (
        f"{ASSUMED}{','.join(map(str, shape))}, the default of {arch}; --shape (shapes= in Python)"
        " gives another"
    )


def assumed_batch(shapes: Sequence[tuple[int, ...]]) -> str:
    """The note for a model that leaves the batch open and gets 1."""
    text = " and ".join(",".join(map(str, shape)) for shape in shapes)
    return (
        f"{ASSUMED}{text}, because the model leaves the batch open; --shape (shapes= in Python)"
        " gives another"
    )


# How the note begins, for those who show it before others.
ASSUMED = "input shape assumed: "
