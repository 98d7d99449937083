"""A compressed network learns from the float one what holds for images that it did not see, and
stays compressed."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from subpc.algorithms.distill import checkpoint as on_disk
from subpc.algorithms.distill.answers import apart
from subpc.algorithms.distill.config import DistillConfig
from subpc.algorithms.distill.distill import distill
from subpc.errors import ConfigError, ModelFileError
from tests.algorithms.distill.networks import IMAGES, OTHERS, in_blocks, in_few_bits, network

CONFIG = DistillConfig(steps=60, batch=16, rate=3e-3, smallest_crop=0.6)


class Stop(Exception):
    """What interrupts here."""


def off(changed: nn.Module, net: nn.Module) -> float:
    """On images that nobody saw, of the deviation of the scores."""
    with torch.no_grad():
        scores, own = changed(OTHERS), net(OTHERS)
    return float((scores - own).norm() / (own - own.mean(0)).norm())


def test_the_loss_is_its_formula() -> None:
    torch.manual_seed(0)
    config = DistillConfig(features=3.0, temperature=2.0)
    taught, scores = torch.randn(2, 5, 4)
    layers = {name: (torch.randn(5, 2, 3), torch.randn(5, 2, 3)) for name in "ab"}
    wanted, got = torch.softmax(taught / 2, 1), torch.softmax(scores / 2, 1)
    expected = 4 * (wanted * (wanted / got).log()).sum(1).mean()
    errors = [((y - x) ** 2).sum() / (x**2).sum() for x, y in layers.values()]
    expected = expected + 3 * (errors[0] + errors[1]) / 2
    torch.testing.assert_close(apart(taught, scores, layers, config), expected)


def test_blocks_that_are_gone_stay_gone_and_others_learn() -> None:
    net = network()
    changed = in_blocks(net)
    state = {key: value.clone() for key, value in changed.state_dict().items()}
    found = distill(net, changed, {}, IMAGES, CONFIG)
    assert found.learnt and found.steps == 60
    assert found.after < 0.5 * found.before
    assert off(found.model, net) < 0.6 * off(changed, net)
    assert not any(module.training for module in found.model.modules())
    for key, value in found.model.state_dict().items():
        assert torch.equal(changed.state_dict()[key], state[key])
        if "weight" in key and state[key].dim() == 4:
            assert torch.equal(value == 0, state[key] == 0)
        if "running" in key:
            assert torch.equal(value, state[key])


def test_codes_are_learnt_within_their_width() -> None:
    net = network()
    changed, codes = in_few_bits(net)
    found = distill(net, changed, codes, IMAGES, dataclasses.replace(CONFIG, steps=300))
    assert found.learnt
    assert off(found.model, net) < 0.8 * off(changed, net)
    assert found.codes.keys() == codes.keys()
    moved = 0
    for name, new in found.codes.items():
        old = codes[name]
        assert (new.bits, new.has_zero) == (old.bits, old.has_zero)
        assert torch.equal(new.scale, old.scale)
        assert int(new.codes.max()) <= new.most
        assert torch.equal(found.model.get_parameter(f"{name}.weight"), new.dequantize())
        moved += int((new.codes != old.codes).sum())
    assert moved > 0


@pytest.mark.parametrize("kind", ["blocks", "codes"])
def test_what_was_interrupted_goes_on_to_the_same_network(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_disk, "_SECONDS", 0.0)
    net, path = network(), tmp_path / "net.pt.distill"
    changed, codes = in_few_bits(net) if kind == "codes" else (in_blocks(net), {})
    config = dataclasses.replace(CONFIG, steps=12)
    whole = distill(net, changed, codes, IMAGES, config)

    def stop(_loss: float, done: int, _steps: int, _left: float) -> None:
        if done == 7:
            raise Stop

    with pytest.raises(Stop):
        distill(net, changed, codes, IMAGES, config, checkpoint=path, on_step=stop)
    seen: list[int] = []
    again = distill(
        *(net, changed, codes, IMAGES, config),
        checkpoint=path,
        on_step=lambda _loss, done, _steps, _left: seen.append(done),
    )
    assert seen == [8, 9, 10, 11, 12]
    assert not path.exists()
    for key, value in whole.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[key], value)


def test_a_checkpoint_of_another_network_or_of_none_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_disk, "_SECONDS", 0.0)
    net, path = network(), tmp_path / "c"
    changed = in_blocks(net)

    def stop(*_: object) -> None:
        raise Stop

    with pytest.raises(Stop):
        distill(net, changed, {}, IMAGES, CONFIG, checkpoint=path, on_step=stop)
    content = path.read_bytes()
    other = dataclasses.replace(CONFIG, rate=1e-5)
    with pytest.raises(ModelFileError, match="another network or with other settings"):
        distill(net, changed, {}, IMAGES, other, checkpoint=path)
    assert path.read_bytes() == content
    path.write_bytes(content[:-100])
    with pytest.raises(ModelFileError, match="not a checkpoint, or is damaged"):
        distill(net, changed, {}, IMAGES, CONFIG, checkpoint=path)
    torch.save({"model": {}}, path)
    with pytest.raises(ModelFileError, match="not a checkpoint of a distillation"):
        distill(net, changed, {}, IMAGES, CONFIG, checkpoint=path)


def test_a_loss_that_is_no_number_keeps_what_was_there() -> None:
    net = network()
    changed = in_blocks(net)
    images = IMAGES.clone()
    images[1] = float("inf")
    found = distill(net, changed, {}, images, dataclasses.replace(CONFIG, batch=48))
    assert not found.learnt
    assert found.model is changed
    assert "the loss was nan at step 0" in found.note


def test_who_learns_nothing_is_left_as_it_is() -> None:
    net = network()
    found = distill(net, net, {}, IMAGES, dataclasses.replace(CONFIG, steps=3))
    assert not found.learnt
    assert found.model is net
    assert "did not fall" in found.note


def test_the_minutes_end_it() -> None:
    net, seen = network(), []
    distill(
        *(net, in_blocks(net), {}, IMAGES, dataclasses.replace(CONFIG, steps=10**6, minutes=0.01)),
        on_step=lambda _loss, done, steps, _left: seen.append((done, steps)),
    )
    assert 3 <= len(seen) < 5000
    assert seen[-1][0] == seen[-1][1]


def test_what_cannot_be_learnt_from_is_refused() -> None:
    net = network()
    with pytest.raises(ConfigError, match="2 images are too few to learn from; 4 or more"):
        distill(net, in_blocks(net), {}, IMAGES[:2], CONFIG)

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.net(x), x

    two = Two().eval()
    with pytest.raises(ConfigError, match="type tuple; distillation needs one tensor"):
        distill(two, two, {}, IMAGES, CONFIG)
    with pytest.raises(ConfigError, match="rate is nan"):
        DistillConfig(rate=float("nan"))
    with pytest.raises(ConfigError, match="steps is 0; accepted: whole numbers"):
        DistillConfig(steps=0)
