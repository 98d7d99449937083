"""Which convolutions pair up in networks that people use, and why the others do not."""

import pytest
import torch
from torch import nn

from subpc.algorithms.network.pairing import Pairing, find_pairs
from subpc.errors import UnsupportedModelError
from subpc.frontend.architectures.build import build_arch


def pairs(name: str) -> Pairing:
    return find_pairs(build_arch(name))


@pytest.mark.parametrize(
    ("name", "count"),
    [("resnet18", 8), ("resnet50", 32), ("vgg16_bn", 12), ("densenet121", 58), ("mobilenet_v2", 0)],
)
def test_networks_have_the_pairs_that_their_blocks_promise(name: str, count: int) -> None:
    assert len(pairs(name).pairs) == count


def test_the_pairs_of_a_bottleneck_are_inside_it() -> None:
    first = pairs("resnet50").pairs[0]
    assert (first.first, first.norm, first.second, first.second_norm) == (
        "layer1.0.conv1",
        "layer1.0.bn1",
        "layer1.0.conv2",
        "layer1.0.bn2",
    )


def test_what_is_left_alone_has_its_reason() -> None:
    left = pairs("resnet18").left_alone
    assert left["conv1"] == "2 layers read its result"
    assert left["layer1.0.conv2"] == "its result is added to a shortcut"
    assert "grouped" in pairs("mobilenet_v2").left_alone["features.1.conv.0.0"]


def test_asymmetric_padding_is_traced_whole() -> None:
    found = pairs("subpc.frontend.architectures.efficientnet_lite0:efficientnet_lite0")
    assert len(found.norms) == 49


def test_a_layer_used_twice_is_left_alone() -> None:
    conv, norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
    found = find_pairs(nn.Sequential(conv, norm, nn.ReLU(), conv, nn.BatchNorm2d(4)))
    assert not found.pairs
    assert set(found.left_alone.values()) == {"the layer, or its weight, is used more than once"}


def test_a_network_without_batch_norm_has_no_pairs() -> None:
    found = find_pairs(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1)))
    assert found.left_alone["0"] == "no batch norm alone behind it"


class _Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


def test_control_flow_on_values_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="cannot be traced"):
        find_pairs(_Branching())
