"""Operators that compression only passes through: networks of torch and ONNX keep them, in files
as well, and for batches of another size."""

import contextlib
import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import subpc
from subpc import UdfcConfig
from subpc.frontend.from_torch.network import exported_network
from subpc.frontend.from_torch.to_graph import network_from_program
from subpc.frontend.load_network import load_network
from tests.frontend.test_load_network import through_file

Function = Callable[[torch.Tensor], Any]
CHANNELS, SIDE = 8, 10

FUNCTIONS: dict[str, Function] = {
    "instance norm": nn.InstanceNorm2d(CHANNELS),
    "instance norm with weights": nn.InstanceNorm2d(CHANNELS, affine=True),
    "group norm": nn.GroupNorm(4, CHANNELS),
    "layer norm": lambda x: F.layer_norm(x, (SIDE, SIDE)),
    "batch norm of rows": nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS, 3), nn.BatchNorm1d(3)
    ),
    "elu": nn.ELU(0.7),
    "selu": nn.SELU(),
    "celu": nn.CELU(1.3),
    "mish": nn.Mish(),
    "softplus": nn.Softplus(),
    "softsign": nn.Softsign(),
    "log": lambda x: torch.log(x.abs() + 1),
    "sine": torch.sin,
    "reciprocal": lambda x: 1 / (x.abs() + 1),
    "floor": torch.floor,
    "argmax": lambda x: x.argmax(1),
    "argmin that keeps its axis": lambda x: x.argmin(2, keepdim=True),
    "maximum of a channel": lambda x: x.max(1)[0],
    "minimum of an image": lambda x: x.amin((2, 3)),
    "deviation": lambda x: x.std(1),
    "length": lambda x: F.normalize(x),
    "cumsum": lambda x: x.cumsum(1),
    "flip": lambda x: x.flip((2, 3)),
    "channels in another order": lambda x: x[:, [2, 1, 0]],
    "where": lambda x: torch.where(x > 0, x, x * 0.1),
    "masked": lambda x: x.masked_fill(x <= 0.2, 0.5),
    "a mask as an output": lambda x: x > 0.1,
    "a mask as a factor": lambda x: x * (x > 0.1),
    "a number that is compared": lambda x: torch.gt(0.1 - x, 0).float(),
    "tile": lambda x: x.repeat(1, 2, 1, 1),
}


class Network(nn.Module):
    """A convolution, and functions behind it."""

    def __init__(self, *functions: Function) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, CHANNELS, 3, padding=1)
        self.functions = functions
        self.layers = nn.ModuleList(part for part in functions if isinstance(part, nn.Module))

    def forward(self, x: torch.Tensor) -> Any:
        y = self.conv(x)
        results = tuple(function(y) for function in self.functions)
        return results if len(results) > 1 else results[0]


def images(count: int) -> torch.Tensor:
    return torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(count))


def check(model: nn.Module, ours: nn.Module, count: int) -> None:
    """The same numbers, of the same types, from every function."""
    with torch.no_grad():
        expected, found = model(images(count)), ours(images(count))
    for name, one, other in zip(FUNCTIONS, expected, found, strict=True):
        torch.testing.assert_close(other, one, msg=lambda text, name=name: f"{name}: {text}")


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return Network(*FUNCTIONS.values()).eval()


def test_from_pytorch(model: nn.Module) -> None:
    network = network_from_program(exported_network(model, (images(1),)))
    for count in (1, 3):
        check(model, network, count)


def test_from_onnx_and_through_a_file(model: nn.Module, tmp_path: Path) -> None:
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (images(1),), str(tmp_path / "m.onnx"), dynamo=False)
    network = load_network(tmp_path / "m.onnx")
    check(model, network.model, 1)
    check(model, through_file(network, tmp_path), 1)


def test_constants_keep_their_type() -> None:
    class Adds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("places", torch.arange(SIDE))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.argmax(1) + self.places

    network = network_from_program(exported_network(Adds(), (images(1),)))
    assert torch.equal(network(images(2)), Adds()(images(2)))
    assert network(images(2)).dtype == torch.int64


def test_a_network_with_them_loses_channels() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 8, 3),
        nn.InstanceNorm2d(8),
    )
    behind = Network(lambda x: torch.log(x.flip(3).abs() + 1).argmax(1))
    behind.conv = nn.Conv2d(8, CHANNELS, 1)
    whole = nn.Sequential(model, behind).eval()
    network = network_from_program(exported_network(whole, (images(1),)))
    small, _ = subpc.compress(
        network, UdfcConfig(ratio=0.5, bits=8), input_shape=(1, 3, SIDE, SIDE)
    )
    assert small.get_submodule("0.0").weight.shape[0] == 8
    assert small(images(2)).dtype == torch.int64
