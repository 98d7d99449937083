"""Second moments of what a filter sees, summed up a few pictures at a time: those of all places at once, in float64."""

import pytest
import torch
from torch import nn

from subpc.algorithms.moments import grouped_rows, groups_of, patches, sample_moments

LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "strided": (nn.Conv2d(6, 4, 3, padding=1, stride=2), (20, 6, 9, 11)),
    "dilated, grouped": (nn.Conv2d(6, 6, 3, padding=2, dilation=2, groups=3), (20, 6, 9, 11)),
    "not square": (nn.Conv2d(2, 4, (1, 5), padding=(0, 2)), (3, 2, 4, 9)),
    "tap by tap": (nn.Conv2d(200, 4, 3, padding=1), (5, 200, 7, 7)),
    "few filters": (nn.Conv2d(8, 2, 3), (5, 8, 7, 7)),
    "linear": (nn.Linear(7, 3), (33, 7)),
    "linear over a sequence": (nn.Linear(7, 3), (5, 4, 7)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_moments_are_those_of_all_places_at_once_however_large_the_mean(name: str) -> None:
    layer, shape = LAYERS[name]
    draw = torch.Generator().manual_seed(0)
    before = torch.randn(shape, generator=draw) + 30
    now = before + 0.1 * torch.randn(shape, generator=draw)
    found = sample_moments(layer, before, now, limit=10**6)
    assert found is not None
    one, two = (patches(x.double(), layer if found.taps == 1 else None, groups=groups_of(layer)) for x in (before, now))
    one, two = one - one.mean(0), two - two.mean(0)
    answers = torch.einsum("pgd,gfd->pgf", one, grouped_rows(layer, found.taps))
    for rows, moments in ((two, found.covariance), (answers, found.answers)):
        expected = torch.einsum("pgd,pge->gde", rows, two) / len(two)
        assert float((moments - expected).abs().max()) < 1e-5 * float(expected.abs().max())


def test_fewer_places_are_spread_over_each_picture() -> None:
    x = torch.arange(32.0).view(2, 1, 4, 4)
    assert patches(x, nn.Conv2d(1, 1, 1), step=5).flatten().tolist() == [0, 5, 10, 15, 16, 21, 26, 31]


def test_filters_that_are_too_long_have_none() -> None:
    assert sample_moments(nn.Linear(5000, 2), torch.rand(3, 5000), torch.rand(3, 5000), 100) is None
