"""Images without labels that are generated from a network."""

from typing import TYPE_CHECKING

from subpc.errors import ConfigError
from subpc.images.unlabelled import MIN_IMAGES, Given
from subpc.progress import Progress

if TYPE_CHECKING:
    from torch import nn


def generate(
    model: "nn.Module",
    count: int,
    shape: tuple[int, ...],
    *,
    steps: int,
    seed: int,
    progress: Progress,
) -> Given:
    """`count` images made from the network alone: random shapes, matched to its batch norms where
    it has some."""
    from torch import nn

    from subpc.algorithms.images.matched_images import MAX_IMAGES as MOST
    from subpc.algorithms.images.matched_images import match
    from subpc.algorithms.images.random_images import random_shapes

    if not MIN_IMAGES <= count <= MOST:
        raise ConfigError(f"{count} synthetic images; {MIN_IMAGES} to {MOST} are accepted.")
    _, channels, height, width = shape
    images = random_shapes(count, channels, (height, width), seed)
    matched = steps > 0 and any(
        isinstance(m, nn.BatchNorm2d) and m.running_var is not None for m in model.modules()
    )
    if matched:
        images = match(model, images, steps, progress)
    return Given(
        images=images,
        label=f"{count} generated"
        + ("" if matched else " (random shapes: no batch norms to match)"),
    )
