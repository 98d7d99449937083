"""What PyTorch users do to a model goes on working while SUBP's masks are on it."""

import copy

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from subpc.algorithms.subp.block_masks import Subp
from subpc.algorithms.subp.config import SubpConfig
from subpc.errors import ConfigError
from subpc.frontend.architectures.small_nets import resnet20

CONFIG = SubpConfig(n=4, sparsity=0.75, start=0, end=4)
X = torch.randn(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def masked(epoch: int = 2) -> tuple[nn.Module, Subp]:
    torch.manual_seed(0)
    model = resnet20(stem_stride=4)
    subp = Subp(model, CONFIG)
    subp.step_epoch(epoch)
    return model, subp


def steps(model: nn.Module, count: int = 2) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(count):
        optimizer.zero_grad()
        model(X).square().mean().backward()
        optimizer.step()


def test_three_lines_in_a_training_loop() -> None:
    torch.manual_seed(0)
    model = resnet20(stem_stride=4)
    subp = Subp(model, SubpConfig(n=4, sparsity=0.75), epochs=3)
    reached = []
    for epoch in range(3):
        reached.append(subp.step_epoch(epoch))
        steps(model)
    subp.finalize()
    assert reached[0] < 0.02
    assert reached[-1] == 0.75
    assert float((model.layer3[1].conv1.weight == 0).float().mean()) == 0.75  # type: ignore[union-attr, index]


def test_fractions_need_the_length_of_the_training() -> None:
    subp = Subp(resnet20(), SubpConfig())
    with pytest.raises(ConfigError, match="pass its length too"):
        subp.step_epoch(0)


def test_a_state_dict_brings_weights_and_masks_back() -> None:
    model, subp = masked()
    steps(model)
    other, _ = masked(epoch=0)
    other.load_state_dict(copy.deepcopy(model.state_dict()))
    assert torch.equal(other.eval()(X), model.eval()(X))
    assert subp.sparsity > 0.05


def test_a_copy_trains_by_itself() -> None:
    model, _ = masked()
    twin = copy.deepcopy(model)
    steps(twin)
    fresh, _ = masked()
    assert all(
        torch.equal(a, b)
        for a, b in zip(model.state_dict().values(), fresh.state_dict().values(), strict=True)
    )
    assert not torch.equal(twin.eval()(X), model.eval()(X))


def test_bfloat16_autocast_keeps_the_masks_and_float32_weights() -> None:
    model, subp = masked(epoch=4)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(X).square().mean()
    loss.backward()
    weight, block = subp._pairs()[0]
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32
    assert set(block.mask.unique().tolist()) == {0.0, 1.0}


def test_a_moving_average_has_the_masks_of_the_model() -> None:
    model, _ = masked()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=True)
    average.update_parameters(model)
    steps(model)
    average.update_parameters(model)
    inner = average.module
    assert torch.equal(inner.layer1[0].conv1.weight == 0, model.layer1[0].conv1.weight == 0)
    assert not torch.equal(average.eval()(X), model.eval()(X))


def test_torch_compile_gives_the_same_gradients() -> None:
    (model, first), (other, second) = masked(), masked()
    torch.compile(model, backend="aot_eager")(X).square().mean().backward()
    other(X).square().mean().backward()
    for (a, _), (b, _) in zip(first._pairs(), second._pairs(), strict=True):
        assert a.grad is not None
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("finalized", [False, True])
def test_torch_export_takes_the_model_at_any_time(finalized: bool) -> None:
    model, subp = masked(epoch=4)
    model.eval()
    expected = model(X)
    if finalized:
        subp.finalize()
    program = torch.export.export(model, (X,))
    torch.testing.assert_close(program.module()(X), expected, rtol=1e-5, atol=1e-6)


def test_gradient_scaling_leaves_the_decay_unscaled() -> None:
    gradients = []
    for scale in (1.0, 1024.0):
        model, subp = masked(epoch=4)
        subp.loss_scale = scale
        (model(X).square().mean() * scale).backward()
        weight, _ = subp._pairs()[0]
        assert weight.grad is not None
        gradients.append(weight.grad / scale)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-7)
