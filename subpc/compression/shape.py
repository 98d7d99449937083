"""Whether a network takes images of a shape, found out before a method starts on it."""

from typing import TYPE_CHECKING, Any

from subpc.errors import ConfigError, SubpcError
from subpc.text import first_line

if TYPE_CHECKING:
    import torch
    from torch import nn

Shape = tuple[int, ...]
# Numbers in one image: above, nothing that a network computes of it has room.
_LARGEST = 1 << 26


def check_image_shape(shape: Shape) -> None:
    """ConfigError unless it is that of float32 images, (n, c, h, w)."""
    if not isinstance(shape, tuple | list):
        raise ConfigError(
            f"The shape is {shape!r:.100}; four numbers are accepted, as in (1, 3, 224, 224)."
        )
    text = ",".join(map(str, shape))
    if len(shape) != 4:
        raise ConfigError(f"The shape {text} has not four numbers, as 1,3,224,224 has.")
    if any(type(size) is not int or size < 1 for size in shape):
        raise ConfigError(
            f"The shape {text} is not valid: every dimension must be 1 or more, as in 1,3,224,224."
        )
    dtype = getattr(shape, "dtype", "") or "float32"
    if dtype != "float32":
        raise ConfigError(
            f"The shape {text} is given for {dtype}; networks with float32 input can be compressed."
        )
    if shape[1] * shape[2] * shape[3] > _LARGEST:
        raise ConfigError(
            f"The shape {text} is too large: an image of at most {_LARGEST} numbers is accepted."
        )


def check_shape(model: "nn.Module", shape: Shape) -> Shape:
    """`shape`, after one image of it went through the network; ConfigError that says why it did
    not."""
    import torch

    check_image_shape(shape)
    try:
        with torch.no_grad():
            model(torch.zeros(1, *shape[1:]))
    except SubpcError:
        raise
    except Exception as error:
        raise ConfigError(
            f"The network does not take input of shape {','.join(map(str, shape))}:"
            f" {first_line(error)}\nPass the shape that it expects, {_hint(model)}."
        ) from error
    return shape


def _hint(model: "nn.Module") -> str:
    from torch import nn

    conv = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    return (
        f"with as many channels as its first convolution takes ({conv.in_channels})"
        if conv is not None
        else "such as 1,3,224,224"
    )


def check_images(images: Any) -> "torch.Tensor | None":
    """Images as a method takes them, (p, c, h, w) float32 on the CPU; ConfigError for anything
    else."""
    import torch

    if images is None:
        return None
    if type(images) is not torch.Tensor or images.layout is not torch.strided or images.is_nested:
        kind = type(images).__name__
        raise ConfigError(
            f"The images are a {kind} that is no dense tensor; a float32 tensor (p, c, h, w) is"
            " accepted."
        )
    if images.dtype != torch.float32 or images.device.type != "cpu":
        where = f"{str(images.dtype).removeprefix('torch.')} on {images.device}"
        raise ConfigError(
            f"The images are {where}; normalised ones in float32 on the CPU are accepted."
        )
    check_image_shape(tuple(images.shape))
    return images
