"""Copies of channel planes are exact, and leave everything else as it was."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from subpc.schedules.channel_copy import ChannelCopy
from subpc.schedules.isa import AVX512, VectorIsa
from tests.schedules.harness import (
    ISAS,
    check_tensor,
    cpu_supports,
    into,
    like,
    out_of,
    run_everywhere,
)


@pytest.mark.pairs
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize("isa", ISAS.values(), ids=ISAS)
@pytest.mark.parametrize("halo", [None, 0, 1])
def test_concat(halo: int | None, isa: VectorIsa, dtype: str) -> None:
    if not cpu_supports(isa):
        pytest.skip("this CPU lacks the instructions")
    rng = np.random.default_rng(0)
    a, b = (np.abs(rng.standard_normal((3, c, 7, 9)) * 50).astype(dtype) for c in (5, 4))
    expected = np.concatenate([a, b], axis=1)
    out = like(expected, halo, dtype)
    y = np.zeros(out.elements, dtype)
    for x, start in ((a, 0), (b, 5)):
        count = x.shape[1]
        kernel = ChannelCopy(
            batch=3,
            frame=out.frame,
            source_channels=count,
            out_channels=9,
            count=count,
            out_start=start,
            dtype=dtype,
        )
        y = run_everywhere(kernel, [into(like(x, halo, dtype), x), y], isa)
    check_tensor(out, y, expected, 0)


@pytest.mark.parametrize("groups", [2, 3])
def test_channel_shuffle(groups: int) -> None:
    x = np.random.default_rng(0).standard_normal((2, 6, 5, 5)).astype("float32")
    layout, y = like(x, 1), np.zeros(like(x, 1).elements, "float32")
    kernel = ChannelCopy(
        batch=2, frame=layout.frame, source_channels=6, out_channels=6, count=6, groups=groups
    )
    y = run_everywhere(kernel, [into(layout, x), y], AVX512)
    np.testing.assert_array_equal(
        out_of(layout, y), functional.channel_shuffle(torch.tensor(x), groups).numpy()
    )


@pytest.mark.parametrize("wrong", [{"count": 7}, {"out_start": 1}, {"groups": 4}], ids=str)
def test_channels_that_are_not_there_are_refused(wrong: dict[str, int]) -> None:
    fields = {"source_channels": 6, "out_channels": 6, "count": 6} | wrong
    with pytest.raises(ValueError, match=r"copy of channels|groups of"):
        ChannelCopy(batch=1, frame=like(np.zeros((1, 6, 5, 5)), 1).frame, **fields)
