"""1xN blocks and their masks, against loops over groups and channels."""

import pytest
import torch

from subpc.algorithms.numerics.one_by_n import block_mask, blocks, expand, magnitudes, pruned_count

N = 4
WEIGHT = torch.randn(8, 5, 3, 2, generator=torch.Generator().manual_seed(0))


def block(group: int, channel: int) -> torch.Tensor:
    return WEIGHT[N * group : N * group + N, channel]


def test_a_row_is_a_block() -> None:
    rows = blocks(WEIGHT, N)
    assert rows.shape == (2, 5, N * 3 * 2)
    assert all(torch.equal(rows[g, i], block(g, i).flatten()) for g in range(2) for i in range(5))
    sizes = magnitudes(WEIGHT, N)
    for g in range(2):
        assert sizes[g].tolist() == pytest.approx(
            [float(block(g, i).abs().sum()) for i in range(5)]
        )


def test_every_group_loses_the_same_number_of_its_lowest_blocks() -> None:
    scores = torch.tensor([[3.0, 1.0, 2.0, 5.0, 4.0], [30.0, 20.0, 10.0, 40.0, 50.0]])
    assert block_mask(scores, 2).tolist() == [
        [True, False, False, True, True],
        [True, False, False, True, True],
    ]


def test_of_a_whole_layer_the_lowest_go_wherever_they_are() -> None:
    scores = torch.tensor([[3.0, 1.0, 2.0, 5.0, 4.0], [30.0, 20.0, 10.0, 40.0, 50.0]])
    assert block_mask(scores, 2, layerwise=True).tolist() == [
        [False, False, False, True, False],
        [True] * 5,
    ]


def test_of_equal_scores_the_first_goes() -> None:
    assert block_mask(torch.zeros(1, 4), 1).tolist() == [[False, True, True, True]]


def test_an_expanded_mask_takes_whole_blocks() -> None:
    mask = torch.tensor([[True, False, True, True, True], [True, True, True, False, False]])
    left = (WEIGHT * expand(mask, N)).ne(0)
    for g in range(2):
        for i in range(5):
            assert (
                bool(left[N * g : N * g + N, i].all())
                == bool(left[N * g : N * g + N, i].any())
                == bool(mask[g, i])
            )


def test_counts_are_rounded_down() -> None:
    assert [pruned_count(0.5, channels) for channels in (1, 2, 3, 5)] == [0, 1, 1, 2]
