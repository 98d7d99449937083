"""Seeded networks and the pattern that is cut into them."""

import pytest
import torch
from torch import nn

from subpc.demo.random_networks import prune_uniform, seeded_model, set_statistics
from subpc.errors import ConfigError
from subpc.runtime.deviation import share_of_range


def network() -> nn.Sequential:
    torch.manual_seed(0)
    convs = [
        nn.Conv2d(3, 32, 3),
        nn.Conv2d(32, 48, 3),
        nn.Conv2d(48, 24, 1),
        nn.Conv2d(24, 48, 3, groups=2),
        nn.Conv2d(48, 32, 1),
    ]
    return nn.Sequential(*convs)


def zeros(conv: nn.Module) -> float:
    assert isinstance(conv, nn.Conv2d)
    return float((conv.weight == 0).float().mean())


def test_blocks_are_uniform() -> None:
    model = prune_uniform(network(), n=16, sparsity=0.75)
    assert [zeros(conv) for conv in model.children()] == [0, 0.75, 0, 0, 0.75]
    live = model.get_submodule("1").weight.view(3, 16, 32, 9).ne(0)  # type: ignore[operator, union-attr]
    assert bool((live.any(dim=1).any(dim=-1) == live.all(dim=1).all(dim=-1)).all())
    assert live.all(dim=1).all(dim=-1).sum(dim=1).tolist() == [8, 8, 8]


def test_the_largest_blocks_survive() -> None:
    before, after = network(), prune_uniform(network(), n=8, sparsity=0.5)
    strength = before.get_submodule("4").weight.detach().view(4, 8, 48).abs().sum(1)  # type: ignore[operator, union-attr]
    kept = after.get_submodule("4").weight.detach().view(4, 8, 48).ne(0).all(1)  # type: ignore[operator, union-attr]
    for row, mask in zip(strength, kept, strict=True):
        assert row[mask].min() > row[~mask].max()


def test_pointwise_only() -> None:
    assert [
        zeros(conv) for conv in prune_uniform(network(), n=16, sparsity=0.5, pointwise_only=True)
    ] == [0, 0, 0, 0, 0.5]


def test_seeded_models_repeat_and_unknown_names_are_refused() -> None:
    first, second = (
        seeded_model("squeezenet1_1").state_dict(),
        seeded_model("squeezenet1_1").state_dict(),
    )
    assert all(torch.equal(first[k], second[k]) for k in first)
    with pytest.raises(ConfigError, match="resnet49"):
        seeded_model("resnet49")


@pytest.mark.parametrize(
    ("name", "branch"),
    [("mobilenet_v2", "features.15.conv.2"), ("convnext_tiny", "features.5.4.block.0")],
)
def test_with_statistics_a_network_depends_on_its_input_through_every_branch(
    name: str, branch: str
) -> None:
    model = set_statistics(seeded_model(name), (1, 3, 64, 64))
    assert not any(part.training for part in model.modules())
    norms = [part for part in model.modules() if isinstance(part, nn.BatchNorm2d)]
    assert all(norm.momentum == nn.BatchNorm2d(1).momentum for norm in norms)
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        first, second = model(x)
        assert share_of_range(second, first) > 0.05
        model.get_submodule(branch).register_forward_hook(
            lambda _module, _inputs, output: output.flip(1)
        )
        assert share_of_range(model(x)[0], first) > 0.01
