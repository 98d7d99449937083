"""EfficientNet-Lite0 as the published PyTorch weights have it: TensorFlow's asymmetric SAME
padding, ReLU6, no squeeze-excite.

Use it as `--arch subpc.frontend.architectures.efficientnet_lite0:efficientnet_lite0`.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

# (blocks, kernel, stride of the first, expansion, output channels), Table 1 of the EfficientNet
# paper, which Lite0 keeps
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM, _HEAD = 32, 1280
_BN_EPS = 1e-3


class SamePadConv2d(nn.Conv2d):
    """A convolution that pads as TensorFlow does: so that ceil(size / stride) pixels result, the
    odd one at the end."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, c, h, w) to (n, k, ceil(h / stride), ceil(w / stride))."""
        top, bottom = _same(int(x.shape[2]), self.kernel_size[0], self.stride[0])
        left, right = _same(int(x.shape[3]), self.kernel_size[1], self.stride[1])
        return super().forward(F.pad(x, (left, right, top, bottom)))


def _same(size: int, kernel: int, stride: int) -> tuple[int, int]:
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class _Block(nn.Module):
    """Inverted residual: widen (1x1), depthwise, narrow (1x1), and add where the shape stays."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        self.expands, self.adds = expansion != 1, stride == 1 and inputs == outputs
        if self.expands:
            self._expand_conv = SamePadConv2d(inputs, width, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(width, eps=_BN_EPS)
        self._depthwise_conv = SamePadConv2d(width, width, kernel, stride, groups=width, bias=False)
        self._bn1 = nn.BatchNorm2d(width, eps=_BN_EPS)
        self._project_conv = SamePadConv2d(width, outputs, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(outputs, eps=_BN_EPS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        result: torch.Tensor = x + y if self.adds else y
        return result


class EfficientNetLite0(nn.Module):
    """(n, 3, h, w), scaled to (x - 127) / 128, to (n, classes)."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self._conv_stem = SamePadConv2d(3, _STEM, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(_STEM, eps=_BN_EPS)
        self._blocks = nn.ModuleList(_blocks())
        self._conv_head = SamePadConv2d(_STAGES[-1][-1], _HEAD, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(_HEAD, eps=_BN_EPS)
        self._fc = nn.Linear(_HEAD, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        x = F.relu6(self._bn1(self._conv_head(x)))
        scores: torch.Tensor = self._fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))
        return scores


def _blocks() -> list[_Block]:
    blocks, channels = [], _STEM
    for count, kernel, stride, expansion, outputs in _STAGES:
        for index in range(count):
            blocks.append(_Block(channels, outputs, kernel, stride if index == 0 else 1, expansion))
            channels = outputs
    return blocks


def efficientnet_lite0(num_classes: int = 1000) -> EfficientNetLite0:
    """The network with random weights."""
    return EfficientNetLite0(num_classes)
