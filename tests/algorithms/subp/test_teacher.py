"""A teacher's share of the loss is what the paper prints, and a network learns by it."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from subpc.algorithms.subp.images import InMemory
from subpc.algorithms.subp.teacher import Teacher
from subpc.algorithms.subp.trainer import accuracy, train
from subpc.errors import ConfigError, ModelFileError
from tests.algorithms.subp.test_trainer import CONFIG, images, network

IMAGE = torch.zeros(1, 1, 8, 8)


def test_the_loss_is_that_of_the_paper() -> None:
    torch.manual_seed(0)
    model, shown, scores = network().eval(), torch.randn(5, 1, 8, 8), torch.randn(5, 2)
    share, temperature, by_labels = 0.7, 3.0, torch.tensor(1.5)
    teacher = Teacher(model, share=share, temperature=temperature, device="cpu")
    with torch.no_grad():
        taught = torch.softmax(model(shown) / temperature, 1)
    student = torch.softmax(scores / temperature, 1)
    divergence = (taught * (taught / student).log()).sum(1).mean()
    expected = (1 - share) * by_labels + share * temperature**2 * divergence
    torch.testing.assert_close(teacher.loss(shown, scores, by_labels), expected)


def test_a_network_learns_from_its_teacher_what_the_labels_do_not_say() -> None:
    data, teacher = images(), network()
    train(teacher, data, data, dataclasses.replace(CONFIG, method="dense"))
    state = {key: value.clone() for key, value in teacher.state_dict().items()}
    wrong = InMemory(data.images, 1 - data.labels, mean=0.4, std=0.3, crop=1)
    alone, taught = network(), network()
    train(alone, wrong, data, dataclasses.replace(CONFIG, teacher_share=1.0))
    train(taught, wrong, data, dataclasses.replace(CONFIG, teacher_share=1.0), teacher=teacher)
    assert accuracy(taught, data) > 90 > accuracy(alone, data)
    assert float((taught.get_parameter("3.weight") == 0).float().mean()) == 0.5
    for key, value in teacher.state_dict().items():
        assert torch.equal(value, state[key])


@pytest.mark.parametrize(
    ("teacher", "reason"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), r"gives \(1, 3\).*\(1, 2\), a score"),
        (nn.Sequential(nn.Flatten(), nn.Linear(63, 2)), r"does not take images of \(1, 8, 8\)"),
        (nn.Conv2d(1, 2, 8), r"gives \(1, 2, 1, 1\)"),
    ],
    ids=["classes", "size", "no-scores"],
)
def test_teachers_of_another_shape_are_refused(teacher: nn.Module, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        train(network(), images(), images(), CONFIG, teacher=teacher)


def test_a_teacher_of_nan_is_refused() -> None:
    teacher = network()
    nn.init.constant_(teacher.get_parameter("3.weight"), float("nan"))
    with pytest.raises(ConfigError, match="not finite"):
        train(network(), images(), images(), CONFIG, teacher=teacher)


def test_a_resumed_training_is_of_the_same_settings(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    config = dataclasses.replace(CONFIG, epochs=2, subp=dataclasses.replace(CONFIG.subp, end=1))
    train(network(), images(), images(), config, teacher=network(), checkpoint=path)
    with pytest.raises(ModelFileError, match="teacher_share"):
        train(
            network(),
            images(),
            images(),
            dataclasses.replace(config, teacher_share=0.5),
            checkpoint=path,
        )
