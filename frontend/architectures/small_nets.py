"""Small convolutional networks for 28x28 and 32x32 images, all widths multiples of 16: plain
convolutions, batch norms and ReLU."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from subpc.errors import ConfigError

# VGG-16's thirteen convolutions at a quarter of the width; "M" halves the plane.
_VGG = (16, 16, "M", 32, 32, "M", 64, 64, 64, "M", 128, 128, 128, 128, 128, 128)
_LARGEST = 4096


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, inputs, h, w) to (n, outputs, h / stride, w / stride)."""
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """The ResNet of He et al. (2016), section 4.2: three stages of `blocks` basic blocks, of width,
    2 width and 4 width channels."""

    def __init__(
        self, blocks: int, *, num_classes: int, in_channels: int, width: int, stem_stride: int
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stem_stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(width, width, blocks, 1)
        self.layer2 = _stage(width, 2 * width, blocks, 2)
        self.layer3 = _stage(2 * width, 4 * width, blocks, 2)
        self.fc = nn.Linear(4 * width, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, in_channels, h, w) to scores (n, num_classes)."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        scores: torch.Tensor = self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))
        return scores


def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(inputs, outputs, stride)
    return nn.Sequential(first, *(BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1)))


def resnet20(
    *, num_classes: int = 10, in_channels: int = 1, width: int = 16, stem_stride: int = 2
) -> nn.Module:
    """ResNet-20, 19 convolutions and one linear layer; `stem_stride` 2 makes planes of 14x14 from
    images of 28x28."""
    return ResNet(
        3, num_classes=num_classes, in_channels=in_channels, width=width, stem_stride=stem_stride
    )


def resnet56(
    *, num_classes: int = 10, in_channels: int = 1, width: int = 16, stem_stride: int = 2
) -> nn.Module:
    """ResNet-56: like resnet20, with nine blocks a stage."""
    return ResNet(
        9, num_classes=num_classes, in_channels=in_channels, width=width, stem_stride=stem_stride
    )


def vgg_small(
    *, num_classes: int = 10, in_channels: int = 1, width: int = 16, stem_stride: int = 2
) -> nn.Module:
    """VGG-16's thirteen convolutions with batch norm, the first of `width` filters, two poolings,
    one linear layer."""
    layers: list[nn.Module] = []
    inputs, stride = in_channels, stem_stride
    for entry in _VGG:
        if entry == "M":
            layers.append(nn.MaxPool2d(2))
            continue
        outputs = int(entry) * width // 16
        layers += [
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]
        inputs, stride = outputs, 1
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, num_classes)
    )


NETS: dict[str, Callable[..., nn.Module]] = {
    "resnet20": resnet20,
    "resnet56": resnet56,
    "vgg_small": vgg_small,
}


def build(name: str, **options: Any) -> nn.Module:
    """The untrained network `name`, one of NETS; ConfigError for another name, an unknown option or
    a size out of 1 to 4096."""
    if name not in NETS:
        raise ConfigError(
            f"There is no network subpc:{name}. Accepted:"
            f" {', '.join(f'subpc:{known}' for known in NETS)}."
        )
    accepted = ("num_classes", "in_channels", "width", "stem_stride")
    for key, value in options.items():
        if key not in accepted:
            raise ConfigError(
                f"subpc:{name} has no option {key!r}. Accepted: {', '.join(accepted)}."
            )
        if type(value) is not int or not 1 <= value <= _LARGEST:
            raise ConfigError(
                f"subpc:{name}: {key} is {value!r}; whole numbers from 1 to {_LARGEST} are"
                " accepted."
            )
    return NETS[name](**options)
