"""SUBP against a loop over blocks that follows the definitions, and what its masks promise in every
epoch."""

import copy
import math

import pytest
import torch

from subpc.algorithms.subp.block_masks import Subp
from subpc.algorithms.subp.config import SubpConfig
from subpc.algorithms.subp.scores import score, sparsity_at
from subpc.errors import ConfigError
from subpc.frontend.architectures.small_nets import resnet20

CONFIG = SubpConfig(n=4, sparsity=0.6, start=2, end=6)


def naive_bpar(weight: torch.Tensor, mask: torch.Tensor, n: int) -> list[list[float]]:
    rows = []
    for g in range(weight.shape[0] // n):
        block = [
            weight[g * n : (g + 1) * n, i].flatten() * mask[g, i] for i in range(weight.shape[1])
        ]
        sizes = [float(b.abs().sum()) for b in block]
        unit = [b / max(float(b.norm()), 1e-12) for b in block]
        r = [sum(abs(float(a @ b)) for b in unit) for a in unit]
        share = [x / sum(r) or 1.0 for x in r]
        rows.append([s / sum(sizes) - q for s, q in zip(sizes, share, strict=True)])
    return rows


def test_bpar_is_the_definition() -> None:
    torch.manual_seed(0)
    weight, mask = torch.randn(8, 6, 3, 3), torch.ones(2, 6)
    mask[0, 2] = mask[1, 5] = 0
    got = score(weight, mask, CONFIG)
    assert torch.allclose(got, torch.tensor(naive_bpar(weight, mask, 4)), atol=1e-5)
    assert got[0, 2] == -1


def test_every_group_keeps_the_same_count_in_every_epoch() -> None:
    torch.manual_seed(0)
    model = resnet20()
    subp = Subp(model, CONFIG)
    for epoch in range(9):
        subp.step_epoch(epoch)
        for weight, block in subp._pairs():
            channels = weight.shape[1]
            expected = (
                channels - int(0.6 * channels) + int((0.6 - sparsity_at(epoch, CONFIG)) * channels)
            )
            assert set(block.mask.sum(1).tolist()) == {float(expected)}
    assert "conv1" in subp.left_dense
    assert all("shortcut" in name for name in subp.left_dense if name != "conv1")


@pytest.mark.parametrize("schedule", ["cubic", "linear", "cos", "exp"])
def test_schedules_rise_from_nothing_to_the_target(schedule: str) -> None:
    config = SubpConfig(sparsity=0.9, start=3, end=23, schedule=schedule)
    rates = [sparsity_at(epoch, config) for epoch in range(30)]
    assert rates[3] == 0
    assert rates[23:] == [0.9] * 7
    assert rates == sorted(rates)
    assert math.isclose(sparsity_at(13, SubpConfig(sparsity=0.8, start=3, end=23)), 0.1)


@pytest.mark.parametrize("scale", [1.0, 8.0])
def test_masked_weights_get_the_whole_gradient_and_their_own_decay(scale: float) -> None:
    gradients = []
    for soft_decay in (0.0, 2e-4):
        torch.manual_seed(0)
        model = resnet20()
        subp = Subp(model, SubpConfig(sparsity=0.75, start=0, end=0, soft_decay=soft_decay))
        subp.loss_scale = scale
        subp.step_epoch(0)
        model(torch.ones(4, 1, 28, 28)).sum().backward()
        weight, block = subp._pairs()[3]
        assert weight.grad is not None
        gradients.append(weight.grad)
    plain, decayed = gradients
    dead = (1 - block.expanded(torch.float32)).expand_as(weight).bool()
    assert plain[dead].abs().sum() > 0
    assert torch.allclose(decayed[dead], plain[dead] + scale * 2e-4 * weight.detach()[dead])
    assert torch.equal(decayed[~dead], plain[~dead])


def test_one_shot_takes_the_lowest_blocks_of_each_group_or_of_the_layer() -> None:
    config = SubpConfig(sparsity=0.5, criterion="l1")
    for layerwise in (False, True):
        torch.manual_seed(0)
        subp = Subp(resnet20(), config)
        subp.prune_once(layerwise=layerwise)
        for weight, block in subp._pairs():
            sums = weight.detach().abs().reshape(-1, config.n, *weight.shape[1:]).sum((1, 3, 4))
            ranked = sums.flatten()[None] if layerwise else sums
            border = (
                ranked.sort(1)
                .values[:, ranked.shape[1] // 2 - 1 : ranked.shape[1] // 2 + 1]
                .mean(1, keepdim=True)
            )
            assert torch.equal(block.mask.bool(), (ranked > border).reshape(block.mask.shape))


def test_copies_agree_and_finalize_leaves_plain_masked_weights() -> None:
    model = resnet20()
    subp = Subp(model, CONFIG)
    subp.step_epoch(4)
    twin = copy.deepcopy(model).eval()
    x = torch.randn(2, 1, 28, 28)
    expected = model.eval()(x)
    assert torch.allclose(twin(x), expected, atol=1e-6)
    subp.finalize()
    assert torch.allclose(model(x), expected, atol=1e-5)
    assert set(model.state_dict()) == set(resnet20().state_dict())
    assert (model.layer3[1].conv1.weight == 0).float().mean() > 0  # type: ignore[union-attr, index]


@pytest.mark.parametrize(
    "values",
    [
        {"n": 5},
        {"sparsity": 1.0},
        {"criterion": "l3"},
        {"start": 9, "end": 3},
        {"temperature": 0.0},
    ],
)
def test_settings_that_make_no_sense_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        SubpConfig(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize("epochs", [1, 2, 3, 7, 200])
def test_the_last_epoch_has_all_of_the_sparsity(epochs: int) -> None:
    assert (
        sparsity_at(epochs - 1, SubpConfig(sparsity=0.9, start=0.05, end=0.95).resolved(epochs))
        == 0.9
    )


def test_config_survives_json() -> None:
    assert SubpConfig.from_dict(CONFIG.to_dict()) == CONFIG


@pytest.mark.parametrize("end", [float("inf"), float("nan"), 1])
def test_an_end_that_no_training_reaches_is_refused(end: float) -> None:
    with pytest.raises(ConfigError, match="start is 2 and end is"):
        SubpConfig(start=2, end=end)
