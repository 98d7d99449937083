"""What networks are followed with where nobody gives images: the same shapes and noise each time,
of a size that the network takes."""

import pytest
import torch
from torch import nn

from subpc.algorithms.images.random_images import (
    inputs_for,
    random_images,
    random_shapes,
    smooth_noise,
)


def anywhere(channels: int = 3) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    ).eval()


def fixed(side: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.AvgPool2d(side), nn.Flatten(), nn.Linear(4, 2)
    ).eval()


DRAWN = {
    "shapes": lambda size: random_shapes(64, 3, size, 0),
    "noise": lambda size: smooth_noise(64, 3, size, torch.Generator().manual_seed(0)),
}


@pytest.mark.parametrize("kind", DRAWN)
@pytest.mark.parametrize(("size", "shape"), [(48, (48, 48)), ((32, 64), (32, 64))])
def test_neighbouring_pixels_and_channels_go_together_as_in_natural_images(
    kind: str, size: int | tuple[int, int], shape: tuple[int, int]
) -> None:
    images = DRAWN[kind](size)
    assert images.shape == (64, 3, *shape)
    torch.testing.assert_close(images.std(), torch.tensor(1.0), rtol=1e-3, atol=0)
    first, second = images.transpose(0, 1)[:2].flatten(1)
    assert float(torch.corrcoef(torch.stack([first, second]))[0, 1]) > 0.5
    near, far = (float((images[..., step:] * images[..., :-step]).mean()) for step in (1, 24))
    assert near > 0.7 > far


@pytest.mark.parametrize(
    ("model", "shape", "expected"),
    [
        (anywhere(1), (1, 1, 28, 28), (256, 1, 28, 28)),
        (anywhere(), (1, 3, 224, 224), (64, 3, 112, 112)),
        (anywhere(), (8, 3, 64, 96), (130, 3, 64, 96)),
        (anywhere(), (1, 3, 1024, 1280), (16, 3, 512, 640)),
        (fixed(128), (1, 3, 128, 128), (49, 3, 128, 128)),
        (anywhere(1), (1, 1, 1, 200_000), (16, 1, 1, 200_000)),
        (fixed(224), None, (16, 3, 224, 224)),
        (anywhere(), None, (196, 3, 64, 64)),
    ],
)
def test_size_and_number_follow_the_network(
    model: nn.Module, shape: tuple[int, ...] | None, expected: tuple[int, ...]
) -> None:
    images = random_images(model, shape)
    assert images is not None and images.shape == expected
    assert model(images[:2]).shape == (2, 2)


@pytest.mark.parametrize(("values", "count"), [(7 * 768, 7), (768, 2)])
def test_there_are_fewer_where_they_would_take_much_memory(
    values: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("subpc.algorithms.images.random_images._VALUES", values)
    images = random_images(anywhere(), (1, 3, 16, 16))
    assert images is not None and images.shape == (count, 3, 16, 16)


def test_they_are_the_same_each_time() -> None:
    first, second = (random_images(anywhere(), (1, 3, 32, 32)) for _ in range(2))
    assert first is not None and second is not None and torch.equal(first, second)


@pytest.mark.parametrize(
    "model", [nn.Sequential(nn.Linear(4, 2)), nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(7, 2))]
)
def test_none_for_a_network_that_runs_on_no_size(model: nn.Module) -> None:
    assert random_images(model, None) is None


def test_given_images_are_taken_as_they_are() -> None:
    given = torch.zeros(2, 3, 8, 8)
    assert inputs_for(anywhere(), "random", given, None) == (given, "given ones")
    assert inputs_for(anywhere(), "normal", None, None) == (None, "none")
    images, label = inputs_for(anywhere(), "random", None, (1, 3, 16, 24))
    assert images is not None and label == f"none ({len(images)} random ones of 24x16)"
    generated, label = inputs_for(normed(), "matched", None, (1, 3, 16, 24))
    assert generated is not None and label == f"none ({len(generated)} generated ones of 24x16)"


def normed() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()


class Rounds(nn.Module):
    """Has no derivative: its result is made anew."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.detach()


@pytest.mark.parametrize(
    "model",
    [
        anywhere(),
        nn.Sequential(normed(), nn.Conv2d(4, 30_000, 5, padding=2)),
        nn.Sequential(Rounds(), normed()),
    ],
    ids=["no batch norms", "too much work", "no derivative"],
)
def test_random_images_stand_in_for_matched_ones(model: nn.Module) -> None:
    images, label = inputs_for(model, "matched", None, (1, 3, 16, 24))
    assert images is not None and "random" in label
    drawn = random_images(model, (1, 3, 16, 24))
    assert drawn is not None and torch.equal(images, drawn)
