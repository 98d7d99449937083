"""A rewritten graph in PyTorch is the network, image by image, in either precision."""

import pytest
import torch
from torch import nn

from subpc.calibration.interpret import Interpreter
from subpc.demo.random_networks import set_statistics
from subpc.frontend.architectures.build import build_arch
from subpc.passes.dataflow import shape_of
from tests.subpc.calibration.float_network import rewritten
from tests.subpc.small_net import SHAPE, small_net

NETWORKS = [
    "resnet18",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "efficientnet_b0",
    "densenet121",
    "squeezenet1_1",
    "shufflenet_v2_x1_0",
    "googlenet",
]
SMALL = (1, 3, 64, 64)


def images(count: int, *shape: int) -> torch.Tensor:
    return torch.randn(count, *shape[1:], generator=torch.Generator().manual_seed(1))


def test_it_is_the_network_for_any_number_of_images_in_double_precision() -> None:
    net, x = small_net(), images(3, *SHAPE)
    (y,) = Interpreter(rewritten(net, *SHAPE).module, dtype=torch.float64).run(x)
    with torch.no_grad():
        expected = net.double()(x.double())
    assert y.dtype == torch.float64
    # Folded weights are float32.
    assert torch.allclose(y, expected, rtol=1e-5, atol=1e-6)


def test_every_tensor_is_shown_in_order_and_none_is_kept() -> None:
    network = rewritten(small_net(), *SHAPE)
    shown = []
    Interpreter(network.module).run(
        images(2, *SHAPE), watch=lambda var, x: shown.append((var, tuple(x.shape)))
    )
    assert [var for var, _ in shown] == network.graph.live()
    assert [shape for _, shape in shown] == [(2, *shape_of(var)[1:]) for var, _ in shown]


@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.MaxPool2d(3, 2, padding=1, ceil_mode=True),
        nn.MaxPool2d(3, 2, dilation=2, ceil_mode=True),
        nn.AvgPool2d(2, 2, ceil_mode=True),
        nn.AvgPool2d(3, 2, padding=1, ceil_mode=True),
        nn.AvgPool2d(3, 2, padding=1, ceil_mode=True, count_include_pad=False),
        nn.AvgPool2d(3, 2, padding=1, count_include_pad=False),
    ],
    ids=str,
)
def test_windows_that_reach_beyond_the_padding(pool: nn.Module) -> None:
    x = images(2, 1, 3, 15, 18)
    (y,) = Interpreter(rewritten(pool, 1, 3, 15, 18).module).run(x)
    assert y.shape == pool(x).shape
    assert torch.allclose(y, pool(x), atol=1e-6)


class Turned(nn.Module):
    """What no kernel of ours takes: columns become rows, channels are sorted."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cumsum(x.transpose(2, 3), 2).flip(1) * 0.5


def test_functions_of_the_operator_library_run_image_by_image() -> None:
    x = images(3, 1, 2, 4, 5)
    network = rewritten(Turned(), 1, 2, 4, 5)
    assert len(network.module.functions) > 1  # main, and what the library gave
    (y,) = Interpreter(network.module).run(x)
    assert torch.allclose(y, Turned()(x), atol=1e-6)


def test_a_graph_with_a_batch_takes_several_batches() -> None:
    net, x = small_net(), images(6, *SHAPE)
    (y,) = Interpreter(rewritten(net, 2, *SHAPE[1:]).module).run(x)
    assert torch.allclose(y, net(x), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_the_network(name: str) -> None:
    options = {"init_weights": True} if name == "googlenet" else {}
    net = set_statistics(build_arch(f"torchvision:{name}", **options), (4, *SMALL[1:]))
    x = images(2, *SMALL)
    (y,) = Interpreter(rewritten(net, *SMALL).module).run(x)
    with torch.no_grad():
        expected = net(x)
    assert (y - expected).abs().max() < 1e-4 * (expected.max() - expected.min())
