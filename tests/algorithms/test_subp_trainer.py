"""Training: resumed runs equal uninterrupted ones, and whatever cannot be trained on is refused."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from subpc.algorithms.subp.config import SubpConfig
from subpc.algorithms.subp.trainer import METHODS, EpochInfo, TrainConfig, augment, train
from subpc.errors import ConfigError, ModelFileError, SubpcError

CONFIG = TrainConfig(subp=SubpConfig(n=4, sparsity=0.5, start=0, end=2), epochs=4, batch=16, rate=0.05)


class Stop(Exception):
    """What interrupts a training here."""


def network() -> nn.Module:
    torch.manual_seed(0)
    convs = [nn.Conv2d(1, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU()]
    return nn.Sequential(*convs, nn.Dropout(0.1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))


def pictures(count: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """Dark and bright noise: two classes that a small network tells apart."""
    labels = torch.arange(count) % 2
    noise = torch.randint(0, 100, (count, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    return (noise + 120 * labels[:, None, None, None]).to(torch.uint8), labels


@pytest.mark.parametrize("method", METHODS)
def test_a_resumed_training_equals_an_uninterrupted_one(method: str, tmp_path: Path) -> None:
    config, data = dataclasses.replace(CONFIG, method=method), pictures()
    whole = network()
    history = train(whole, data, data, config)
    assert history.epochs[-1].top1 > 90

    def stop(info: EpochInfo) -> None:
        if info.epoch == 1:
            raise Stop

    with pytest.raises(Stop):
        train(network(), data, data, config, checkpoint=tmp_path / "c.pt", on_epoch=stop)
    resumed = network()
    again = train(resumed, data, data, config, checkpoint=tmp_path / "c.pt")
    assert [(e.loss, e.top1, e.sparsity) for e in again.epochs] == [(e.loss, e.top1, e.sparsity) for e in history.epochs]
    state = whole.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in resumed.state_dict().items())
    zeros = float((state["3.weight"] == 0).float().mean())
    assert zeros == (0.0 if method == "dense" else 0.5)


def test_a_loss_that_is_no_number_stops_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    data, config = pictures(), dataclasses.replace(CONFIG, rate=1e30)
    with pytest.raises(SubpcError, match="good checkpoint"):
        train(network(), data, data, config, checkpoint=tmp_path / "c.pt")
    assert [path.name for path in tmp_path.iterdir()] in ([], ["c.pt"])


def test_a_checkpoint_of_another_config_is_refused(tmp_path: Path) -> None:
    data = pictures()
    train(network(), data, data, dataclasses.replace(CONFIG, epochs=3), checkpoint=tmp_path / "c.pt")
    with pytest.raises(ModelFileError, match=r"another config.*epochs"):
        train(network(), data, data, CONFIG, checkpoint=tmp_path / "c.pt")
    (tmp_path / "c.pt").write_bytes(b"nothing")
    with pytest.raises(ModelFileError, match="not a checkpoint"):
        train(network(), data, data, CONFIG, checkpoint=tmp_path / "c.pt")


def test_data_that_cannot_be_trained_on() -> None:
    images, labels = pictures()
    with pytest.raises(ConfigError, match="class 0"):
        train(network(), (images, labels * 0), (images, labels), CONFIG)
    with pytest.raises(ConfigError, match="do not fill a batch"):
        train(network(), (images[:8], labels[:8]), (images, labels), CONFIG)
    with pytest.raises(ConfigError, match="uint8"):
        train(network(), (images.float(), labels), (images, labels), CONFIG)


@pytest.mark.parametrize("wrong", [{"epochs": 2}, {"method": "magic"}, {"batch": 1}, {"rate": 0.0}, {"seed": 1 << 20}, {"std": 0.0}])
def test_settings_that_do_not_fit(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="accepted"):
        dataclasses.replace(CONFIG, **wrong)  # type: ignore[arg-type]


def test_augmented_pictures_are_crops_or_their_mirrors() -> None:
    images = torch.arange(1, 17.0).reshape(1, 1, 4, 4).expand(50, 1, 4, 4)
    padded = torch.nn.functional.pad(images[0, 0], (1, 1, 1, 1))
    crops = [padded[y : y + 4, x : x + 4] for y in range(3) for x in range(3)]
    allowed = [c for crop in crops for c in (crop, crop.flip(1))]
    got = augment(images, 1, torch.Generator().manual_seed(0))
    assert all(any(torch.equal(picture[0], other) for other in allowed) for picture in got)
    assert len({tuple(picture.flatten().tolist()) for picture in got}) > 10
