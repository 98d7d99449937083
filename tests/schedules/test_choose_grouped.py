"""The tile that a grouped convolution gets without tuning."""

import pytest

from subpc.schedules.choose_grouped import default_grouped_tile
from subpc.schedules.isa import AVX2, AVX512, GENERIC, VectorIsa
from tests.schedules.harness import tensor


@pytest.mark.parametrize(
    ("width", "isa", "narrow"),
    [
        (7, AVX512, True),
        (8, AVX512, True),
        (9, AVX512, False),
        (4, AVX2, True),
        (5, AVX2, False),
        (2, GENERIC, False),
    ],
)
def test_half_vectors_where_they_cover_a_row(width: int, isa: VectorIsa, narrow: bool) -> None:
    assert default_grouped_tile(tensor(1, 32, 7, width, 1), isa).narrow is narrow


@pytest.mark.parametrize(
    ("channels", "size", "rows_outer"),
    [(96, 56, True), (144, 28, True), (576, 14, False), (16, 7, False), (96, 53, False)],
    ids=[
        "many pixels",
        "still more than channels",
        "more channels",
        "rows in one tile",
        "tiles overlap",
    ],
)
def test_cores_share_rows_where_the_convolutions_around_share_pixels(
    channels: int, size: int, rows_outer: bool
) -> None:
    assert default_grouped_tile(tensor(1, channels, size, size, 1), AVX512).rows_outer is rows_outer
