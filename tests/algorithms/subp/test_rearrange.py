"""Filter rearrangement: the same function, larger retained magnitudes, and layers whose order
others depend on left alone."""

import copy

import pytest
import torch
from torch import nn

from subpc.algorithms.subp.block_masks import Subp
from subpc.algorithms.subp.config import SubpConfig
from subpc.algorithms.subp.rearrange import rearrange
from subpc.frontend.architectures.small_nets import build


def network(name: str) -> nn.Module:
    """Filters of unlike size and batch norms that have seen something: every array's order
    matters."""
    generator = torch.Generator().manual_seed(0)
    model = build(name, width=32).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight, module.bias, module.running_mean, module.running_var):
                assert values is not None
                values.data.copy_(torch.rand(values.shape, generator=generator) + 0.5)
        elif isinstance(module, nn.Conv2d):
            scales = torch.randn(module.out_channels, generator=generator).exp()
            module.weight.data.copy_(
                torch.randn(module.weight.shape, generator=generator)
                * scales[:, None, None, None]
                * 0.05
            )
    return model


def retained(model: nn.Module) -> float:
    """The L1 norm that layer-wise 1x16 pruning at 75 % leaves, summed over the layers."""
    subp = Subp(
        copy.deepcopy(model), SubpConfig(n=16, sparsity=0.75, criterion="l1", keep_dense=())
    )
    subp.prune_once(layerwise=True)
    return sum(
        float((weight.detach() * block.expanded(weight.dtype)).abs().sum())
        for weight, block in subp._pairs()
    )


@pytest.mark.parametrize("name", ["resnet20", "vgg_small"])
def test_the_function_stays_and_pruning_retains_more(name: str) -> None:
    model = network(name)
    x = torch.randn(4, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    before, magnitude, weights = model(x), retained(model), copy.deepcopy(model.state_dict())
    rearrange(model)
    after = model(x)
    assert torch.allclose(after, before, rtol=1e-5, atol=1e-5 * float(before.abs().max()))
    assert any(not torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    assert retained(model) > 1.02 * magnitude


def test_filters_fall_in_norm_where_no_shortcut_depends_on_their_order() -> None:
    model = network("resnet20")
    before = copy.deepcopy(model.state_dict())
    left = rearrange(model)
    for key, value in model.state_dict().items():
        if key.endswith("conv1.weight") and key.startswith("layer"):
            norms = value.abs().sum((1, 2, 3))
            assert torch.equal(norms, norms.sort(descending=True).values)
        elif key == "conv1.weight" or "shortcut.0.weight" in key:
            assert torch.equal(value, before[key])
    assert left["layer1.0.conv2"] == "its result is added to a shortcut"
    assert set(left) == {name for name, m in model.named_modules() if isinstance(m, nn.Conv2d)} - {
        f"layer{stage}.{block}.conv1" for stage in (1, 2, 3) for block in (0, 1, 2)
    }
