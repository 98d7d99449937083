"""Second moments of what a filter sees, summed up a few images at a time: those of all places at
once, in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from subpc.algorithms.statistics.filter_taps import make_taps
from subpc.algorithms.statistics.moments import grouped_rows, groups_of, patches, sample_moments
from subpc.algorithms.statistics.padded import zeros_beside

LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "strided": (nn.Conv2d(6, 4, 3, padding=1, stride=2), (20, 6, 9, 11)),
    "dilated, grouped": (nn.Conv2d(6, 6, 3, padding=2, dilation=2, groups=3), (20, 6, 9, 11)),
    "not square": (nn.Conv2d(2, 4, (1, 5), padding=(0, 2)), (3, 2, 4, 9)),
    "tap by tap": (nn.Conv2d(200, 4, 3, padding=1), (5, 200, 7, 7)),
    "one tap, strided": (nn.Conv2d(6, 4, 1, stride=2, groups=2), (9, 6, 8, 5)),
    "wider than a block of rows": (nn.Conv2d(70, 4, 2), (6, 70, 6, 6)),
    "few filters": (nn.Conv2d(8, 2, 3), (5, 8, 7, 7)),
    "linear": (nn.Linear(7, 3), (33, 7)),
    "linear over a sequence": (nn.Linear(7, 3), (5, 4, 7)),
}


def under_filters(layer: nn.Module | None, x: torch.Tensor, groups: int) -> torch.Tensor:
    """(places, groups, d): what each filter multiplies, in the order of its weights."""
    if not isinstance(layer, nn.Conv2d):
        return (x.permute(0, 2, 3, 1) if x.dim() == 4 else x).reshape(
            -1, 1, x.shape[1 if x.dim() == 4 else -1]
        )
    assert not isinstance(layer.padding, str)
    columns = F.unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
    return columns.transpose(1, 2).reshape(-1, groups, layer.weight[0].numel())


@pytest.mark.parametrize("name", LAYERS)
def test_moments_are_those_of_all_places_at_once_however_large_the_mean(name: str) -> None:
    layer, shape = LAYERS[name]
    draw = torch.Generator().manual_seed(0)
    before = torch.randn(shape, generator=draw) + 30
    now = before + 0.1 * torch.randn(shape, generator=draw)
    found = sample_moments(
        layer,
        lambda: zip(torch.split(before, 2), torch.split(now, 2), strict=True),
        len(now),
        limit=10**6,
    )
    assert found is not None
    one, two = (
        under_filters(layer if found.taps == 1 else None, x.double(), groups_of(layer))
        for x in (before, now)
    )
    one, two = one - one.mean(0), two - two.mean(0)
    answers = torch.einsum("pgd,gfd->pgf", one, grouped_rows(layer, found.taps))
    for rows, moments in ((two, found.covariance), (answers, found.answers)):
        expected = torch.einsum("pgd,pge->gde", rows, two) / len(two)
        assert float((moments - expected).abs().max()) < 1e-5 * float(expected.abs().max())


def test_fewer_places_are_spread_over_each_image() -> None:
    x = torch.arange(32.0).view(2, 1, 4, 4)
    assert patches(x, nn.Conv2d(1, 1, 1), step=5).flatten().tolist() == [
        0,
        5,
        10,
        15,
        16,
        21,
        26,
        31,
    ]


def test_patches_are_what_the_convolution_multiplies() -> None:
    conv = nn.Conv2d(3, 4, (3, 2), stride=2, padding=1, bias=False)
    x, middle = torch.randn(2, 3, 9, 8), torch.tensor([1.0, 2.0, 3.0])
    expected = conv(x).permute(0, 2, 3, 1).reshape(-1, 4)
    weights = conv.weight.permute(0, 2, 3, 1).flatten(1)
    torch.testing.assert_close(patches(x, conv)[0] @ weights.T, expected)
    torch.testing.assert_close(
        patches(x, conv, middle=middle)[0] @ weights.T, expected - weights @ middle.repeat(6)
    )


class PadsItself(nn.Conv2d):
    """As TensorFlow's SAME does for stride 2, and timm's Conv2dSame: the odd pixel at the end."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(F.pad(x, (0, 1, 1, 2)))


@pytest.mark.parametrize(
    "conv",
    [
        PadsItself(3, 4, (5, 3), stride=2, bias=False),
        nn.Conv2d(3, 4, (2, 4), padding="same", bias=False),
        nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect", bias=False),
    ],
    ids=["in its own forward", "same, even", "reflected"],
)
def test_patches_have_what_the_layer_pads_with(conv: nn.Conv2d) -> None:
    x = torch.randn(2, 3, 10, 8)
    expected = conv(x).permute(0, 2, 3, 1).reshape(-1, 4)
    torch.testing.assert_close(
        patches(x, conv)[0] @ conv.weight.permute(0, 2, 3, 1).flatten(1).T, expected
    )


def test_the_border_of_normal_variables_is_what_the_layer_pads_with() -> None:
    own, plain = PadsItself(3, 4, 4), nn.Conv2d(3, 4, 4, padding=(1, 1))
    assert zeros_beside(own) == (1.5, 0.5) and zeros_beside(plain) == (1, 1)
    reflected = nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect")
    assert zeros_beside(reflected) == (0, 0)
    assert make_taps(reflected, 0.5, 7).inside.eq(1).all()


def test_filters_that_are_too_long_have_none() -> None:
    x = torch.rand(3, 5000)
    assert sample_moments(nn.Linear(5000, 2), lambda: [(x, x)], 3, 100) is None
