"""Taps that read nothing but padding: cut off where they do so everywhere, skipped where they do so
for a whole tile."""

import pytest
import torch
from torch import nn

from subpc.compiler.compile_model import compile
from subpc.schedules.layout import halo_frame
from tests.passes.evaluate import assert_same, attributes, stages


def images(height: int, width: int) -> torch.Tensor:
    return torch.randn(2, 32, height, width, generator=torch.Generator().manual_seed(1))


def convolution(
    kernel: int, dilation: int, padding: int, stride: int = 1, groups: int = 1
) -> nn.Module:
    torch.manual_seed(0)
    return nn.Conv2d(
        32, 32, kernel, stride=stride, padding=padding, dilation=dilation, groups=groups
    ).eval()


@pytest.mark.parametrize(
    ("size", "options", "padding"),
    [
        (
            (14, 14),
            {"kernel": 3, "dilation": 24, "padding": 24},
            (0, 0, 0, 0),
        ),  # DeepLabV3 on a small image: a 1x1 filter is left
        (
            (14, 15),
            {"kernel": 3, "dilation": 14, "padding": 14},
            (0, 14, 0, 14),
        ),  # of the rows one, of the columns all
        ((14, 14), {"kernel": 3, "dilation": 13, "padding": 13}, (13, 13, 13, 13)),
        ((5, 5), {"kernel": 7, "dilation": 2, "padding": 6}, (4, 4, 4, 4)),
        ((9, 9), {"kernel": 3, "dilation": 12, "padding": 12, "stride": 2}, (0, 0, 0, 0)),
        ((14, 14), {"kernel": 3, "dilation": 24, "padding": 24, "groups": 32}, (0, 0, 0, 0)),
        (
            (6, 6),
            {"kernel": 3, "dilation": 10, "padding": 9},
            (9, 9, 9, 9),
        ),  # without its first tap it would begin inside the plane
    ],
)
def test_a_filter_loses_the_outer_taps_that_never_read_a_pixel(
    size: tuple[int, int], options: dict[str, int], padding: tuple[int, ...]
) -> None:
    net, x = convolution(**options), images(*size)
    before, after = stages(net, tuple(x.shape), until="trim_taps")
    assert_same(before, after, x)
    (conv,) = attributes(after, "relax.subpc.conv2d")
    assert tuple(conv["padding"]) == padding


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(
    ("size", "options"),
    [
        ((14, 14), {"kernel": 3, "dilation": 12, "padding": 12}),
        ((14, 17), {"kernel": 3, "dilation": 13, "padding": 13}),
        ((9, 7), {"kernel": 3, "dilation": 6, "padding": 6}),
        ((11, 11), {"kernel": 5, "dilation": 4, "padding": 8}),
        ((13, 13), {"kernel": 3, "dilation": 10, "padding": 10, "stride": 2}),
        ((15, 15), {"kernel": 3, "dilation": 6, "padding": 3}),
    ],
)
def test_wide_filters_compute_what_pytorch_does(
    size: tuple[int, int], options: dict[str, int], sparse: bool
) -> None:
    net, x = convolution(**options), images(*size)
    if sparse:
        net.weight.data[:16, ::2] = 0
        net.weight.data[16:, 1::2] = 0
    with torch.no_grad():
        expected = net(x)
    torch.testing.assert_close(
        compile(net, x, sparse="always" if sparse else "off")(x), expected, rtol=1e-4, atol=1e-4
    )


def test_one_wide_filter_does_not_widen_the_tensors_of_other_layers() -> None:
    def memory(dilation: int) -> int:
        torch.manual_seed(0)
        layers = [nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()) for _ in range(4)]
        wide = nn.Conv2d(32, 32, 3, padding=dilation, dilation=dilation)
        net = nn.Sequential(*layers, wide, *layers).eval()
        return compile(net, images(20, 20)).functions[0].workspace_floats

    own_copy = 2 * 32 * halo_frame(20, 20, 18).plane
    assert memory(18) <= memory(1) + 1.1 * own_copy
