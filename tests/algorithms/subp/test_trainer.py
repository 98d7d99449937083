"""Training: resumed runs equal uninterrupted ones, and whatever cannot be trained on is refused."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from subpc.algorithms.subp.config import SubpConfig
from subpc.algorithms.subp.images import InMemory, augment, draw
from subpc.algorithms.subp.train_config import METHODS, EpochInfo, TrainConfig
from subpc.algorithms.subp.trainer import learning_rate, train
from subpc.errors import ConfigError, ModelFileError, SubpcError

CONFIG = TrainConfig(
    subp=SubpConfig(n=4, sparsity=0.5, start=0, end=2), epochs=4, batch=16, rate=0.05
)


class Stop(Exception):
    """What interrupts a training here."""


def network() -> nn.Module:
    torch.manual_seed(0)
    convs = [
        nn.Conv2d(1, 8, 3, 2, 1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, 1, 1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
    ]
    return nn.Sequential(
        *convs, nn.Dropout(0.1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)
    )


def images(count: int = 64, *, classes: int = 2) -> InMemory:
    """Dark and bright noise: two classes that a small network tells apart."""
    labels = torch.arange(count) % classes
    noise = torch.randint(0, 100, (count, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    return InMemory(
        (noise + 120 * labels[:, None, None, None]).to(torch.uint8),
        labels,
        mean=0.4,
        std=0.3,
        crop=1,
    )


@pytest.mark.parametrize("method", METHODS)
def test_a_resumed_training_equals_an_uninterrupted_one(method: str, tmp_path: Path) -> None:
    config, data = dataclasses.replace(CONFIG, method=method, mask_updates=2), images()
    whole = network()
    history = train(whole, data, data, config)
    assert history.epochs[-1].top1 > 90

    def stop(epochs: tuple[EpochInfo, ...]) -> None:
        if len(epochs) == 2:
            raise Stop

    with pytest.raises(Stop):
        train(network(), data, data, config, checkpoint=tmp_path / "c.pt", on_epoch=stop)
    resumed = network()
    again = train(resumed, data, data, config, checkpoint=tmp_path / "c.pt")
    assert [(e.loss, e.top1, e.sparsity) for e in again.epochs] == [
        (e.loss, e.top1, e.sparsity) for e in history.epochs
    ]
    state = whole.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in resumed.state_dict().items())
    zeros = float((state["3.weight"] == 0).float().mean())
    assert zeros == (0.0 if method == "dense" else 0.5)
    assert again.pruned == (() if method == "dense" else ("3",))


def test_a_loss_that_is_no_number_stops_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    data = images()
    with pytest.raises(SubpcError, match="last good epoch is kept"):
        train(
            network(),
            data,
            data,
            dataclasses.replace(CONFIG, rate=1e30),
            checkpoint=tmp_path / "c.pt",
        )
    assert list(tmp_path.iterdir()) == []

    def spoil(epochs: tuple[EpochInfo, ...]) -> None:
        data._std = float("nan")

    with pytest.raises(SubpcError, match="of epoch 1"):
        train(network(), data, images(), CONFIG, checkpoint=tmp_path / "c.pt", on_epoch=spoil)
    kept = torch.load(tmp_path / "c.pt", weights_only=True)
    assert len(kept["epochs"]) == 1
    assert all(bool(value.isfinite().all()) for value in kept["model"].values())


def test_a_checkpoint_of_another_config_is_refused(tmp_path: Path) -> None:
    data = images()
    train(
        network(), data, data, dataclasses.replace(CONFIG, epochs=3), checkpoint=tmp_path / "c.pt"
    )
    with pytest.raises(ModelFileError, match=r"another config.*epochs"):
        train(network(), data, data, CONFIG, checkpoint=tmp_path / "c.pt")
    (tmp_path / "c.pt").write_bytes(b"nothing")
    with pytest.raises(ModelFileError, match="not a checkpoint"):
        train(network(), data, data, CONFIG, checkpoint=tmp_path / "c.pt")


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    data, other = images(), network()
    train(network(), data, data, CONFIG, checkpoint=tmp_path / "c.pt")
    other[0] = nn.Conv2d(1, 8, 5, 2, 2)  # type: ignore[index]
    with pytest.raises(ModelFileError, match="does not fit this model"):
        train(other, data, data, CONFIG, checkpoint=tmp_path / "c.pt")


def test_data_that_cannot_be_trained_on() -> None:
    data = images()
    with pytest.raises(ConfigError, match="class 0"):
        train(network(), images(classes=1), data, CONFIG)
    with pytest.raises(ConfigError, match="do not fill a batch"):
        train(network(), images(8), data, CONFIG)
    with pytest.raises(ConfigError, match="no test images"):
        train(network(), data, images(0), CONFIG)
    with pytest.raises(ConfigError, match="uint8"):
        InMemory(data.images.float(), data.labels, mean=0.4, std=0.3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 2},
        {"method": "magic"},
        {"batch": 1},
        {"rate": 0.0},
        {"seed": 1 << 20},
        {"mask_updates": 0},
        {"rearrange": True},
    ],
)
def test_settings_that_do_not_fit(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"accepted|needs"):
        dataclasses.replace(CONFIG, **wrong)  # type: ignore[arg-type]


def test_a_config_survives_json_and_unknown_keys_are_refused() -> None:
    config = dataclasses.replace(CONFIG, method="oneshot", prune_epoch=1, finetune_rate=0.01)
    assert TrainConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ConfigError, match="unknown keys"):
        TrainConfig.from_dict({**config.to_dict(), "rates": 1})


def test_the_learning_rate_falls_to_nothing_once_or_twice() -> None:
    once = [learning_rate(e, CONFIG) for e in (0, 2, 4)]
    assert once == pytest.approx([0.05, 0.025, 0.0])
    twice = dataclasses.replace(CONFIG, method="oneshot", finetune_rate=0.02)
    assert [learning_rate(e, twice) for e in (0, 1, 1.999, 2, 3, 4)] == pytest.approx(
        [0.05, 0.025, 0, 0.02, 0.01, 0], abs=1e-6
    )


def test_augmented_images_are_crops_or_their_mirrors() -> None:
    images = torch.arange(1, 17.0).reshape(1, 1, 4, 4).expand(50, 1, 4, 4)
    padded = torch.nn.functional.pad(images[0, 0], (1, 1, 1, 1))
    crops = [padded[y : y + 4, x : x + 4] for y in range(3) for x in range(3)]
    allowed = [c for crop in crops for c in (crop, crop.flip(1))]
    got = augment(images, 1, draw(50, 1, torch.Generator().manual_seed(0)))
    assert all(any(torch.equal(image[0], other) for other in allowed) for image in got)
    assert len({tuple(image.flatten().tolist()) for image in got}) > 10


def test_a_image_is_augmented_alike_in_whatever_batch_it_is() -> None:
    data = images()
    (whole, _), *_ = data.training([torch.arange(64)], seed=3)
    halves = [
        images
        for images, _ in data.training([torch.arange(0, 64, 2), torch.arange(1, 64, 2)], seed=3)
    ]
    assert torch.equal(whole[0::2], halves[0])
    assert torch.equal(whole[1::2], halves[1])
