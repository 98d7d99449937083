"""Weights that are computed from parameters alone are computed when compiling, and the layer keeps
its name."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

from subpc.compiler.compile_model import compile
from subpc.errors import UnsupportedModelError
from subpc.frontend.import_model import import_model
from subpc.frontend.reference import build_reference

SHAPE = (1, 3, 9, 9)
TOLERANCE = 1e-5


class Net(nn.Module):
    """What is done to `block.conv` and `fc` differs from test to test."""

    def __init__(self, conv: nn.Conv2d | None = None) -> None:
        super().__init__()
        self.stem, self.block, self.fc = nn.Conv2d(3, 8, 3), nn.Module(), nn.Linear(16, 4)
        self.block.conv, self.block.bn = conv or nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.block.bn(self.block.conv(self.stem(x).relu())).relu()
        return self.fc(x.mean((2, 3)))


class Doubled(nn.Module):
    """A parametrization as users write them: a number, a mask of another type, arithmetic."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.register_buffer("mask", torch.arange(16 * 8 * 9).reshape(16, 8, 3, 3) % 3 > 0)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return torch.where(self.mask, weight * self.scale, torch.zeros(()))


class Standardised(nn.Conv2d):
    """Weight standardisation by way of a batch norm, as in BiT and NFNet."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = F.batch_norm(
            self.weight.reshape(1, len(self.weight), -1), None, None, training=True, momentum=0.0
        )
        return F.conv2d(x, weight.reshape_as(self.weight), self.bias, self.stride, self.padding)


class LowRank(nn.Conv2d):
    """The sum of a frozen weight and a product of two small ones."""

    def __init__(self) -> None:
        super().__init__(8, 16, 3, padding=1)
        self.down, self.up = nn.Parameter(torch.randn(2, 72)), nn.Parameter(torch.randn(16, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(
            x, self.weight + (self.up @ self.down).reshape_as(self.weight), self.bias, 1, 1
        )


class FakeQuantized(nn.Conv2d):
    """Rounded to 8 bits in float, by the operator of PyTorch's own quantization."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = self.weight.abs().amax((1, 2, 3)) / 127
        weight = torch.fake_quantize_per_channel_affine(
            self.weight, scale, torch.zeros(16, dtype=torch.int32), 0, -128, 127
        )
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


WAYS: dict[str, Callable[[Net], object]] = {
    "structured mask": lambda net: prune.ln_structured(net.block.conv, "weight", 0.5, n=1, dim=1),
    "mask": lambda net: prune.l1_unstructured(net.block.conv, "weight", 0.5),
    "mask of a linear layer": lambda net: prune.random_unstructured(net.fc, "weight", 0.5),
    "parametrization": lambda net: parametrize.register_parametrization(
        net.block.conv, "weight", Doubled()
    ),
    "two parametrizations": lambda net: [
        parametrizations.weight_norm(net.block.conv),
        parametrize.register_parametrization(net.block.conv, "weight", Doubled()),
    ],
    "weight norm": lambda net: parametrizations.weight_norm(net.block.conv),
    "weight norm of old": lambda net: weight_norm(net.block.conv),
    "spectral norm": lambda net: parametrizations.spectral_norm(net.block.conv),
    "spectral norm of old": lambda net: spectral_norm(net.block.conv),
    "orthogonal": lambda net: parametrizations.orthogonal(net.fc),
    "standardised": lambda net: setattr(net.block, "conv", Standardised(8, 16, 3, padding=1)),
    "low rank": lambda net: setattr(net.block, "conv", LowRank()),
    "quantized": lambda net: setattr(net.block, "conv", FakeQuantized(8, 16, 3, padding=1)),
}


def made(way: str) -> Net:
    torch.manual_seed(0)
    net = Net()
    WAYS[way](net)
    return net.eval()


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("way", WAYS)
def test_the_layer_has_its_name_and_its_values(way: str) -> None:
    net, inputs = made(way), torch.randn(2, *SHAPE)
    (model,) = import_model(net, shapes=[SHAPE])
    assert {"stem.weight", "block.conv.weight", "fc.weight"} <= set(model.param_names.values())
    assert not any(
        "orig" in name or "mask" in name or "parametrizations" in name
        for name in model.param_names.values()
    )
    values = {name: model.params[key] for key, name in model.param_names.items()}
    if way not in ("standardised", "low rank", "quantized"):
        with torch.no_grad():
            np.testing.assert_allclose(
                values["block.conv.weight"], net.block.conv.weight.numpy(), rtol=1e-5, atol=1e-7
            )
    run = build_reference(model)
    with torch.no_grad():
        for x in inputs:
            np.testing.assert_allclose(
                run([x.numpy()])[0], net(x).numpy(), rtol=1e-4, atol=TOLERANCE
            )


def test_a_mask_that_is_still_on_gives_sparse_kernels() -> None:
    torch.manual_seed(0)
    net = Net(nn.Conv2d(8, 16, 3, padding=1))
    prune.ln_structured(net.block.conv, "weight", 0.5, n=1, dim=1)
    x = torch.randn(SHAPE)
    compiled = compile(net.eval(), x)
    found = {layer.name: layer for layer in compiled.report.layers}
    assert (found["block.conv"].sparsity, found["block.conv"].sparse) == (0.5, True)
    assert not compiled.report.in_fallback
    with torch.no_grad():
        assert torch.allclose(compiled(x), net(x), atol=TOLERANCE)


def test_exported_programs_and_scripts_fold_too(tmp_path: Path) -> None:
    net, x = made("mask"), torch.randn(SHAPE)
    torch.export.save(torch.export.export(net, (x,)), tmp_path / "net.pt2")
    (model,) = import_model(tmp_path / "net.pt2")
    assert "block.conv.weight" in model.param_names.values()
    (model,) = import_model(torch.jit.trace(net, x), shapes=[SHAPE])
    assert "block.conv.weight" in model.param_names.values()


class Shared(nn.Module):
    """One set of filters at two scales, and once as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.Parameter(torch.randn(8, 3, 3, 3))
        self.scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (
            torch.cat(
                [
                    F.conv2d(x, self.filters),
                    F.conv2d(x, self.filters * self.scale),
                    F.conv2d(x, self.filters * 2),
                ],
                1,
            )
            * self.scale
        )


def test_shared_filters_are_layers_of_their_own() -> None:
    net, x = Shared().eval(), torch.randn(SHAPE)
    compiled = compile(net, x)
    assert [layer.name for layer in compiled.report.layers] == ["filters", "filters#2", "filters#3"]
    with torch.no_grad():
        assert torch.allclose(compiled(x), net(x), atol=TOLERANCE)


class Coded(nn.Module):
    """8-bit codes and a scale for each filter, multiplied in every call."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("codes", torch.randint(-127, 127, (8, 3, 3, 3), dtype=torch.int8))
        self.register_buffer("scale", torch.rand(8, 1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, self.codes.float() * self.scale)


def test_integer_codes_give_the_name() -> None:
    net, x = Coded().eval(), torch.randn(SHAPE)
    compiled = compile(net, x)
    assert [layer.name for layer in compiled.report.layers] == ["codes"]
    assert not compiled.report.in_fallback
    assert torch.allclose(compiled(x), net(x), rtol=1e-4, atol=1e-3)


class Doubling(nn.Module):
    """A few small tensors that grow without bound."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1024))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        grown = self.weight
        for _ in range(30):
            grown = torch.cat([grown, grown])
        return x + grown.mean(dtype=torch.float32, dim=0, keepdim=True)


def test_what_is_made_is_bounded_before_it_is_made() -> None:
    program = torch.export.export(Doubling(), (torch.ones(1),))  # which computes with shapes alone
    with pytest.raises(UnsupportedModelError, match="elements from its weights"):
        import_model(program)


def test_random_numbers_are_not_folded() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(8, 3, 3, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.conv2d(x, self.weight + torch.randn_like(self.weight))

    with pytest.raises(UnsupportedModelError, match="randn_like"):
        import_model(Noisy().eval(), shapes=[SHAPE])
