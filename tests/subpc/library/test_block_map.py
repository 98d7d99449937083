"""Block maps as text, and text that is none."""

import base64
import zlib

import numpy as np
import pytest

from subpc.errors import ModelFileError
from subpc.library.block_map import MAX_BLOCKS, pack_blocks, unpack_blocks


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (4, 64), (128, 2048)])
def test_a_pattern_survives(shape: tuple[int, int]) -> None:
    kept = np.random.default_rng(0).random(shape) < 0.3
    np.testing.assert_array_equal(unpack_blocks(pack_blocks(kept), *shape), kept)


def test_a_large_layer_takes_little_room() -> None:
    assert len(pack_blocks(np.random.default_rng(0).random((128, 2048)) < 0.25)) < 50_000


SMALL = pack_blocks(np.ones((2, 8), bool))
BOMB = base64.b64encode(zlib.compress(bytes(1 << 24))).decode()


@pytest.mark.parametrize(
    ("text", "groups", "channels"),
    [
        ("", 2, 8),
        ("é", 2, 8),
        ("AAAA", 2, 8),
        (pack_blocks(np.ones((2, 8), bool)), 4, 8),
        (BOMB, 2, 8),
        (BOMB, MAX_BLOCKS, 2),
        (BOMB, 0, 8),
    ],
    ids=["empty", "no text", "no stream", "other shape", "bomb", "too many", "none"],
)
def test_text_that_is_no_pattern_is_refused(text: str, groups: int, channels: int) -> None:
    with pytest.raises(ModelFileError, match="block map"):
        unpack_blocks(text, groups, channels)
