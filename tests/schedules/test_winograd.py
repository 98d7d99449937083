"""Winograd convolution against PyTorch: sizes, register tiles, bands, residuals, and the formula of
its filters."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from subpc.schedules.activation import Activation
from subpc.schedules.epilogue import Epilogue
from subpc.schedules.isa import AVX512, VectorIsa
from subpc.schedules.winograd import WinogradConv
from subpc.schedules.winograd_tile import WinogradTile, fits
from subpc.schedules.winograd_transforms import transformed_filters
from tests.schedules.harness import (
    ISAS,
    assembly,
    check_tensor,
    cpu_supports,
    into,
    like,
    run_everywhere,
    tensor,
)
from tests.schedules.sparse import Filters, random_filters

RELU = Activation(kind="relu")
DENSE: dict[str, Any] = {"sparse": False, "uniform": True}
SMALL = WinogradTile(rows=1, columns=2, vectors=1, blocks=1, bands=1, pixels_outer=True)


def check(
    tile: WinogradTile,
    isa: VectorIsa = AVX512,
    *,
    size: tuple[int, int],
    filters: Filters | None = None,
    **options: Any,
) -> None:
    if not cpu_supports(isa):
        pytest.skip("this CPU lacks the instructions")
    rows = tile.vectors * isa.lanes
    filters = filters or random_filters(32, 5, (3, 3), n=rows, sparsity=0.0)
    rng = np.random.default_rng(1)
    batch, padding = options.pop("batch", 1), options.pop("padding", (1, 1))
    c_out, c_in = filters.weight.shape[:2]
    x, bias = (
        rng.standard_normal((batch, c_in, *size)).astype("float32"),
        rng.standard_normal(c_out).astype("float32"),
    )
    expected = functional.conv2d(
        torch.tensor(x), torch.tensor(filters.weight), torch.tensor(bias), 1, padding
    )
    source, out = tensor(*x.shape, 1), like(expected.numpy(), 1)
    assert fits(source, out, padding, tile)
    fields = {"sparse": True, "epilogue": Epilogue(activation=RELU)} | options
    pattern = {"group": filters.n, "kept": filters.count, "uniform": filters.uniform}
    conv = WinogradConv(source=source, out=out, padding=padding, tile=tile, **pattern, **fields)
    operands = {"x": into(source, x), "bias": bias, "y": np.zeros(out.elements, "float32")}
    operands["v"] = np.full(conv.sizes()["v"].elements, np.nan, "float32")
    operands |= filters.operands(rows, conv.channel_floats, conv.sparse) | {
        "w": panels(filters, rows)
    }
    if conv.epilogue.residual:
        residual = rng.standard_normal(tuple(expected.shape)).astype("float32")
        expected = expected + torch.tensor(residual)
        operands[conv.epilogue.operand] = into(out, residual)
    got = run_everywhere(conv, [operands[name] for name in conv.operands], isa)
    check_tensor(out, got, functional.relu(expected).numpy())


def panels(filters: Filters, rows: int) -> np.ndarray:
    """The operand w: (group, row block, position, kept channel, filter)."""
    u, packed = transformed_filters(filters.weight), []
    for group, channels in enumerate(filters.kept):
        for start in range(group * filters.n, (group + 1) * filters.n, rows):
            for position in range(16):
                packed += [u[start : start + rows, channel, position] for channel in channels]
    return np.concatenate(packed)


def tile_of(
    rows: int, columns: int, vectors: int, blocks: int, bands: int, pixels_outer: bool = True
) -> WinogradTile:
    return WinogradTile(
        rows=rows,
        columns=columns,
        vectors=vectors,
        blocks=blocks,
        bands=bands,
        pixels_outer=pixels_outer,
    )


def test_filters_are_transformed_as_the_paper_says() -> None:
    weight = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype("float32")
    g = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
    u = transformed_filters(weight)
    for o, i in np.ndindex(4, 3):
        np.testing.assert_allclose(
            u[o, i].reshape(4, 4), g @ weight[o, i] @ g.T, rtol=1e-6, atol=1e-6
        )


@pytest.mark.parametrize("isa", ISAS.values(), ids=ISAS)
@pytest.mark.parametrize("size", [(4, 4), (7, 7), (6, 9), (9, 6), (2, 3), (1, 4)], ids=str)
def test_sizes(size: tuple[int, int], isa: VectorIsa) -> None:
    check(SMALL, isa, size=size, batch=2)


@pytest.mark.parametrize(
    ("size", "tile"),
    [
        ((28, 28), tile_of(1, 14, 2, 3, 2)),
        ((28, 28), tile_of(1, 14, 1, 2, 7, pixels_outer=False)),
        ((14, 14), tile_of(2, 7, 2, 1, 1)),
        ((14, 14), tile_of(2, 7, 2, 2, 2)),
        ((7, 7), tile_of(4, 4, 1, 1, 1)),
        ((7, 7), tile_of(3, 4, 2, 1, 1)),
        ((13, 20), tile_of(1, 10, 2, 1, 7)),
        ((15, 37), tile_of(2, 5, 2, 3, 4)),
        ((2, 2), tile_of(1, 1, 1, 1, 1)),
        ((5, 5), tile_of(1, 1, 2, 3, 1)),
        ((5, 33), tile_of(1, 14, 2, 2, 1, pixels_outer=False)),
    ],
    ids=str,
)
def test_register_tiles_blocks_and_bands(size: tuple[int, int], tile: WinogradTile) -> None:
    check(tile, size=size, filters=random_filters(64, 20, (3, 3), n=32, sparsity=0.6))


@pytest.mark.pairs
@pytest.mark.parametrize("isa", ISAS.values(), ids=ISAS)
@pytest.mark.parametrize("uniform", [True, False])
@pytest.mark.parametrize("n", [16, 32])
def test_patterns(n: int, uniform: bool, isa: VectorIsa) -> None:
    filters = random_filters(64, 24, (3, 3), n=n, sparsity=0.7, uniform=uniform)
    check(tile_of(2, 4, 1, 2, 1), isa, size=(8, 15), filters=filters, batch=2)


def test_dense_needs_no_index() -> None:
    check(
        SMALL, size=(6, 8), filters=random_filters(32, 7, (3, 3), n=16, sparsity=0.0), sparse=False
    )


@pytest.mark.parametrize("padding", [(0, 0), (1, 0), (0, 1)], ids=str)
def test_padding(padding: tuple[int, int]) -> None:
    check(SMALL, size=(9, 12), padding=padding)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("size", [(7, 7), (6, 8), (5, 12)], ids=str)
def test_residual(size: tuple[int, int], in_place: bool) -> None:
    check(SMALL, size=size, epilogue=Epilogue(residual=True, in_place=in_place, activation=RELU))


def test_tiles_that_overlap_cannot_add_a_residual_in_place() -> None:
    with pytest.raises(ValueError, match="added twice"):
        check(SMALL, size=(6, 10), epilogue=Epilogue(residual=True, in_place=True))


def test_bands_are_equal() -> None:
    with pytest.raises(ValueError, match="equal bands"):
        check(tile_of(1, 2, 1, 1, 2), size=(6, 8))
    with pytest.raises(ValueError, match="a band has 6"):
        check(tile_of(1, 2, 1, 7, 1), size=(6, 8))


def test_what_the_transform_would_read_beyond_a_plane_does_not_fit() -> None:
    source = tensor(1, 8, 301, 301, 1)
    assert not fits(source, source, (1, 1), tile_of(1, 14, 2, 1, 1))
    assert fits(
        tensor(1, 8, 300, 300, 1), tensor(1, 8, 300, 300, 1), (1, 1), tile_of(1, 14, 2, 1, 1)
    )
    assert not fits(
        tensor(1, 8, 300, 300, 0), tensor(1, 8, 300, 300, 1), (1, 1), tile_of(1, 14, 2, 1, 1)
    )


@pytest.mark.parametrize("size", [(7, 7), (8, 9)], ids=str)
def test_pixels_beyond_the_image_do_no_harm(size: tuple[int, int]) -> None:
    """An odd image's last tiles read what stands behind its halo: NaN there must not reach a
    pixel."""
    source = tensor(1, 4, *size, 1)
    conv = WinogradConv(
        source=source,
        out=tensor(1, 16, *size, 1),
        padding=(1, 1),
        group=16,
        kept=4,
        tile=SMALL,
        **DENSE,
    )
    x = np.random.default_rng(2).standard_normal((1, 4, *size)).astype("float32")
    flat = into(source, x).reshape(4, source.frame.plane)
    flat[:, source.frame.first + (size[0] + 1) * source.frame.pitch :] = np.nan
    weight = np.random.default_rng(3).standard_normal((16, 4, 3, 3)).astype("float32")
    filters = Filters(weight=weight, n=16, kept=[list(range(4))])
    operands = {"x": flat.ravel(), "w": panels(filters, 16), "bias": np.zeros(16, "float32")}
    operands |= {name: np.zeros(conv.sizes()[name].elements, "float32") for name in ("v", "y")}
    got = run_everywhere(conv, [operands[name] for name in conv.operands], AVX512)
    check_tensor(
        conv.out, got, functional.conv2d(torch.tensor(x), torch.tensor(weight), padding=1).numpy()
    )


def test_products_keep_their_sums_in_registers() -> None:
    layout = tensor(1, 64, 56, 56, 1)
    tile = tile_of(1, 14, 2, 2, 4)
    conv = WinogradConv(
        source=layout, out=layout, padding=(1, 1), group=32, kept=64, tile=tile, **DENSE
    )
    text = assembly(conv, AVX512)
    blocks = text.split("\n.LBB")
    inner = max(blocks, key=lambda block: block.count("vfmadd"))
    assert inner.count("vfmadd") == 28
    assert "(%rsp)" not in inner
