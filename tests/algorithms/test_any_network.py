"""Every network that is promised, and every oddity of one, goes through all three methods."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from subpc.algorithms.blocks.compress import compress_blocks
from subpc.algorithms.blocks.config import BlockConfig
from subpc.algorithms.dfmpc.compress import compress_dfmpc
from subpc.algorithms.dfmpc.config import DfmpcConfig
from subpc.algorithms.network.channels import keep_features, keep_inputs, keep_outputs
from subpc.algorithms.udfc.compress import compress_udfc
from subpc.algorithms.udfc.config import UdfcConfig
from subpc.errors import ConfigError, UnsupportedModelError
from subpc.frontend.architectures.build import build_arch

LITE = "subpc.frontend.architectures.efficientnet_lite0:efficientnet_lite0"
# Whole ones, and those whose structure is tested at an eighth of their width, for seconds instead
# of minutes.
WHOLE = ["mobilenet_v2", "subpc:resnet56", LITE]
NARROW = ["resnet18", "resnet34", "resnet50", "resnet101", "vgg16_bn", "densenet121"]
NARROWER = 8
Compress = Callable[[nn.Module, torch.Tensor | None], nn.Module]
METHODS: dict[str, Compress] = {
    "udfc": lambda net, images: compress_udfc(net, UdfcConfig(), images=images)[0],
    "udfc-paper": lambda net, images: compress_udfc(net, UdfcConfig.paper())[0],
    "dfmpc": lambda net, images: compress_dfmpc(net, DfmpcConfig(), images=images)[0],
    "dfmpc-feedback": lambda net, images: compress_dfmpc(
        net, DfmpcConfig(feedback=True), images=images
    )[0],
    "dfmpc-paper": lambda net, images: compress_dfmpc(net, DfmpcConfig.paper())[0],
    "blocks": lambda net, images: compress_blocks(net, BlockConfig(n=4), images=images)[0],
}


def narrow(net: nn.Module) -> nn.Module:
    """`net` with an eighth of the channels everywhere but at its ends, and one linear layer behind
    its features."""
    first = next(m for m in net.modules() if isinstance(m, nn.Conv2d))
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            keep_outputs(
                module, torch.arange(module.out_channels) < module.out_channels // NARROWER
            )
            if module is not first:
                keep_inputs(
                    module, torch.arange(module.in_channels) < module.in_channels // NARROWER
                )
        elif isinstance(module, nn.BatchNorm2d):
            keep_features(
                module, torch.arange(module.num_features) < module.num_features // NARROWER
            )
    head = "fc" if hasattr(net, "fc") else "classifier"
    old = getattr(net, head)
    features = (old[0] if isinstance(old, nn.Sequential) else old).in_features // NARROWER
    setattr(net, head, nn.Linear(features, 10))
    return net


@pytest.mark.slow
@pytest.mark.parametrize("method", ["udfc", "dfmpc", "blocks"])
@pytest.mark.parametrize("name", [*WHOLE, *NARROW])
def test_promised_networks_go_through(name: str, method: str) -> None:
    torch.manual_seed(0)
    net = build_arch(name)
    net = (narrow(net) if name in NARROW else net).eval()
    small = (
        compress_blocks(net, BlockConfig(n=8, rounds=1))[0]
        if method == "blocks"
        else METHODS[method](net, None)
    )
    assert bool(torch.isfinite(small(torch.randn(1, 1 if "subpc:" in name else 3, 64, 64))).all())


@pytest.mark.parametrize("method", ["udfc", "dfmpc", "blocks"])
@pytest.mark.parametrize("name", ["subpc:resnet20"])
def test_small_networks_go_through(name: str, method: str) -> None:
    torch.manual_seed(0)
    small = METHODS[method](build_arch(name), None)
    assert bool(torch.isfinite(small(torch.randn(1, 1, 28, 28))).all())


def norm(channels: int) -> nn.BatchNorm2d:
    made = nn.BatchNorm2d(channels)
    nn.init.uniform_(made.weight, 0.5, 1.5)
    nn.init.normal_(made.bias)
    return made


class Odd(nn.Module):
    """Non-square kernels, a depthwise and a grouped convolution, a shared shortcut, a join, a layer
    used twice, gamma of 0."""

    def __init__(self, activation: type[nn.Module]) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, (3, 5), 1, (1, 2), bias=False), norm(8), activation()
        )
        self.wide = nn.Sequential(
            nn.Conv2d(8, 8, (1, 3), 1, (0, 1)),
            norm(8),
            activation(),
            nn.Conv2d(8, 8, (3, 1), 1, (1, 0)),
            norm(8),
        )
        self.depthwise = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1, groups=8), norm(8), activation())
        self.grouped = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1, groups=2), norm(8), activation())
        self.twice = nn.Conv2d(8, 8, 1)
        self.last = nn.Sequential(
            nn.Conv2d(16, 8, 3, 2, 1, dilation=1), norm(8), activation(), nn.Conv2d(8, 4, 1)
        )
        nn.init.zeros_(self.wide[1].weight.data[::2])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, 3, h, w) to (n, 4)."""
        x = self.stem(x)
        y = F.relu(self.wide(x) + x)
        z = self.twice(self.twice(self.grouped(self.depthwise(y + x))))
        return torch.flatten(
            F.adaptive_avg_pool2d(self.last(torch.cat([F.max_pool2d(z, 3, 1, 1), y], 1)), 1), 1
        )


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.ReLU6, nn.SiLU])
@pytest.mark.parametrize("method", list(METHODS))
def test_odd_networks_go_through(method: str, activation: type[nn.Module], given: bool) -> None:
    torch.manual_seed(0)
    net = Odd(activation).eval()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    small = METHODS[method](net, torch.randn(4, 3, 12, 12) if given else None)
    assert bool(torch.isfinite(small(torch.randn(2, 3, 12, 12))).all())
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


@pytest.mark.parametrize("method", list(METHODS))
def test_batch_norms_without_running_statistics_are_refused(method: str) -> None:
    norm = nn.BatchNorm2d(8, track_running_stats=False)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), norm, nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()
    with pytest.raises(UnsupportedModelError, match=r"^1 keeps no running statistics"):
        METHODS[method](net, None)


@pytest.mark.parametrize("bits", [8])
def test_eight_bits_everywhere_change_little(bits: int) -> None:
    torch.manual_seed(0)
    net, x = Odd(nn.ReLU6).eval(), torch.randn(4, 3, 12, 12)
    small, _, _ = compress_dfmpc(
        net, DfmpcConfig(low_bits=bits, high_bits=bits, compensation="none", recalibration="none")
    )
    with torch.no_grad():
        assert float((small(x) - net(x)).norm() / net(x).norm()) < 0.03


def test_a_shared_weight_stays_shared_and_is_quantized_once() -> None:
    net = nn.Sequential(*(nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))).eval()
    net[2].weight = net[1].weight
    for compress, config in ((compress_udfc, UdfcConfig()), (compress_dfmpc, DfmpcConfig())):
        small, codes, _ = compress(net, config)  # type: ignore[operator]
        assert small[2].weight is small[1].weight
        assert set(codes) == {"0", "1"}


def test_images_beside_settings_that_look_at_weights_alone_are_refused() -> None:
    net = Odd(nn.ReLU).eval()
    for compress, config in (
        (compress_udfc, UdfcConfig.paper()),
        (compress_dfmpc, DfmpcConfig.paper()),
    ):
        with pytest.raises(ConfigError, match="images have no use"):
            compress(net, config, images=torch.randn(2, 3, 8, 8))  # type: ignore[operator]
