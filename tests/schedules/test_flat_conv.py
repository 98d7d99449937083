"""Convolution on flat pixel ranges against PyTorch: shapes, patterns, clamped inputs, residuals."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from subpc.schedules.activation import Activation
from subpc.schedules.epilogue import Epilogue
from subpc.schedules.flat_conv import FlatConv
from subpc.schedules.flat_tile import FlatTile
from subpc.schedules.isa import AVX512, VectorIsa
from tests.schedules.harness import ISAS, check_conv, cpu_supports, into, like
from tests.schedules.sparse import Filters, random_filters, tap_offsets

RELU = Activation(kind="relu")
BOUNDS = {"floor": -0.2, "ceiling": 0.7}


def check(
    filters: Filters,
    isa: VectorIsa,
    *,
    size: tuple[int, int] = (9, 11),
    batch: int = 1,
    halo: int = 1,
    tile: tuple[int, int, int] = (4, 2, 1),
    **options: Any,
) -> None:
    if not cpu_supports(isa):
        pytest.skip("this CPU lacks the instructions")
    rng = np.random.default_rng(1)
    c_out, c_in, height, width = filters.weight.shape
    padding = (height // 2, width // 2)
    x, bias = (
        rng.standard_normal((batch, c_in, *size)).astype("float32"),
        rng.standard_normal(c_out).astype("float32"),
    )
    source, out = like(x, halo), like(np.zeros((batch, c_out, *size)), halo)
    rows, vectors, blocks = tile
    fields = {"bounds": (), "sparse": True, "epilogue": Epilogue(activation=RELU)}
    conv = FlatConv(
        source=source,
        phases=1,
        out=out,
        taps=tap_offsets(out.frame, (height, width), (1, 1), padding),
        group=filters.n,
        kept=filters.count,
        uniform=filters.uniform,
        tile=FlatTile(rows=rows, vectors=vectors, blocks=blocks, pixels_outer=batch > 1),
        **(fields | options),
    )
    operands = {"x": into(source, x), "bias": bias, "y": np.zeros(out.elements, "float32")}
    operands |= filters.operands(rows, source.frame.plane, conv.sparse)
    limits = {
        name: value + 0.01 * np.arange(c_in, dtype="float32")
        for name, value in BOUNDS.items()
        if name in conv.bounds
    }
    order = (
        [channel for channels in filters.kept for channel in channels]
        if conv.sparse
        else list(range(c_in))
    )
    operands |= {name: limit[order] for name, limit in limits.items()}
    clamped = np.maximum(x, limits["floor"][:, None, None]) if "floor" in limits else x
    clamped = (
        np.minimum(clamped, limits["ceiling"][:, None, None]) if "ceiling" in limits else clamped
    )
    operands["mask"] = into(like(np.zeros((1, 1, *size)), halo), np.ones((1, 1, *size)))
    expected = functional.conv2d(
        torch.tensor(clamped), torch.tensor(filters.weight), torch.tensor(bias), padding=padding
    )
    check_conv(conv, operands, expected.numpy(), isa)


@pytest.mark.pairs
@pytest.mark.parametrize("isa", ISAS.values(), ids=ISAS)
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (1, 3)], ids=str)
@pytest.mark.parametrize("n", [4, 8, 16, 32])
def test_patterns(n: int, kernel: tuple[int, int], isa: VectorIsa) -> None:
    check(random_filters(32, 12, kernel, n=n, sparsity=0.5), isa, batch=2)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 31), (7, 7), (14, 14), (5, 17)], ids=str)
@pytest.mark.parametrize("tile", [(1, 1, 1), (8, 2, 2), (4, 6, 1)], ids=str)
def test_planes_and_tiles(size: tuple[int, int], tile: tuple[int, int, int]) -> None:
    check(random_filters(16, 5, (3, 3), n=8, sparsity=0.4), AVX512, size=size, tile=tile)


def test_groups_that_keep_different_numbers_of_channels() -> None:
    check(random_filters(32, 24, (3, 3), n=8, sparsity=0.5, uniform=False), AVX512, batch=2)


def test_a_plane_without_halo_needs_no_mask() -> None:
    check(random_filters(16, 5, (1, 1), n=8, sparsity=0.4), AVX512, halo=0)


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("bounds", [("floor",), ("floor", "ceiling")], ids=str)
def test_inputs_are_clamped_channel_by_channel(bounds: tuple[str, ...], sparse: bool) -> None:
    filters = random_filters(16, 6, (1, 1), n=8, sparsity=0.5 if sparse else 0.0)
    check(filters, AVX512, bounds=bounds, sparse=sparse)


@pytest.mark.parametrize("in_place", [False, True])
def test_residual(in_place: bool) -> None:
    check(
        random_filters(16, 6, (1, 1), n=8, sparsity=0.5),
        AVX512,
        epilogue=Epilogue(residual=True, in_place=in_place, activation=RELU),
    )
