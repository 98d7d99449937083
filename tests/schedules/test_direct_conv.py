"""Convolution with channels in the lanes against PyTorch: shapes, strides, dilation, tiles,
patterns, residuals."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from subpc.schedules.activation import Activation
from subpc.schedules.choose_direct import choose_direct_tile
from subpc.schedules.direct_conv import DirectConv
from subpc.schedules.direct_tile import DirectTile
from subpc.schedules.epilogue import Epilogue
from subpc.schedules.isa import AVX512, VectorIsa
from tests.schedules.harness import ISAS, assembly, check_conv, cpu_supports, into, like, tensor
from tests.schedules.sparse import Filters, random_filters

RELU = Activation(kind="relu")
PLAIN = Epilogue(activation=RELU)


def check(
    filters: Filters,
    isa: VectorIsa,
    *,
    size: tuple[int, int] = (9, 11),
    batch: int = 1,
    sparse: bool = True,
    **options: Any,
) -> None:
    if not cpu_supports(isa):
        pytest.skip("this CPU lacks the instructions")
    rng = np.random.default_rng(1)
    c_out, c_in, *kernel = filters.weight.shape
    stride, dilation, padding = (
        options.get("stride", (1, 1)),
        options.get("dilation", (1, 1)),
        options.get("padding", (1, 1)),
    )
    x, bias = (
        rng.standard_normal((batch, c_in, *size)).astype("float32"),
        rng.standard_normal(c_out).astype("float32"),
    )
    expected = functional.conv2d(
        torch.tensor(x), torch.tensor(filters.weight), torch.tensor(bias), stride, padding, dilation
    )
    source, out = tensor(*x.shape, max(padding)), like(expected.numpy(), 1)
    tile = options.pop("tile", None) or choose_direct_tile(
        group=filters.n,
        size=(out.frame.height, out.frame.width),
        kernel=(kernel[0], kernel[1]),
        stride=stride[1],
        dilation=dilation[1],
        weight_bytes=1,
        source_bytes=2,
        disjoint=options.get("epilogue", PLAIN).in_place,
        isa=isa,
    )
    fields = {"stride": stride, "dilation": dilation, "padding": padding, "epilogue": PLAIN}
    conv = DirectConv(
        source=source,
        out=out,
        kernel=(kernel[0], kernel[1]),
        group=filters.n,
        kept=filters.count,
        sparse=sparse,
        uniform=filters.uniform,
        tile=tile,
        **(fields | options),
    )
    operands = {"x": into(source, x), "bias": bias, "y": np.zeros(out.elements, "float32")}
    operands |= filters.operands(tile.vectors * isa.lanes, source.frame.plane, sparse)
    check_conv(conv, operands, expected.numpy(), isa)


@pytest.mark.pairs
@pytest.mark.parametrize("isa", ISAS.values(), ids=ISAS)
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (1, 5), (5, 2)], ids=str)
@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (3, 1)], ids=str)
def test_shapes_and_strides(
    stride: tuple[int, int], kernel: tuple[int, int], isa: VectorIsa
) -> None:
    filters = random_filters(32, 12, kernel, n=16, sparsity=0.5)
    check(filters, isa, stride=stride, padding=(kernel[0] // 2, kernel[1] // 2))


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 31), (7, 7), (14, 14), (5, 17)], ids=str)
def test_planes_that_no_tile_divides(size: tuple[int, int]) -> None:
    check(random_filters(16, 5, (3, 3), n=16, sparsity=0.4), AVX512, size=size)


@pytest.mark.parametrize("tile", [(1, 7, 1), (2, 5, 1), (3, 4, 2), (4, 11, 1), (1, 3, 2)], ids=str)
def test_every_tile_computes_the_same(tile: tuple[int, int, int]) -> None:
    rows, columns, vectors = tile
    shape = DirectTile(rows=rows, columns=columns, vectors=vectors, pixels_outer=rows % 2 == 0)
    check(random_filters(64, 6, (3, 3), n=32, sparsity=0.5), AVX512, tile=shape)


@pytest.mark.parametrize("n", [16, 32])
@pytest.mark.parametrize("sparsity", [0.0, 0.75, 0.95])
def test_uniform_patterns(sparsity: float, n: int) -> None:
    check(random_filters(64, 24, (3, 3), n=n, sparsity=sparsity), AVX512, batch=2)


def test_groups_that_keep_different_numbers_of_channels() -> None:
    check(random_filters(64, 24, (3, 3), n=16, sparsity=0.5, uniform=False), AVX512, batch=2)


def test_dense_needs_no_index() -> None:
    check(random_filters(32, 7, (3, 3), n=16, sparsity=0.0), AVX512, sparse=False)


@pytest.mark.parametrize("dilation", [(2, 2), (1, 3)], ids=str)
def test_dilation(dilation: tuple[int, int]) -> None:
    check(
        random_filters(16, 5, (3, 3), n=16, sparsity=0.2),
        AVX512,
        dilation=dilation,
        padding=dilation,
    )


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("width", [7, 14, 13, 16])
def test_residual(width: int, in_place: bool) -> None:
    added = Epilogue(residual=True, in_place=in_place, activation=RELU)
    check(
        random_filters(32, 6, (3, 3), n=16, sparsity=0.5), AVX512, size=(5, width), epilogue=added
    )


def test_columns_that_overlap_cannot_add_a_residual_in_place() -> None:
    with pytest.raises(ValueError, match="added twice"):
        check(
            random_filters(16, 4, (3, 3), n=16, sparsity=0.5),
            AVX512,
            tile=DirectTile(rows=1, columns=4, vectors=1, pixels_outer=True),
            epilogue=Epilogue(residual=True, in_place=True),
        )


def test_the_inner_loop_has_fused_multiply_adds_and_no_spills() -> None:
    layout = tensor(1, 64, 14, 14, 1)
    tile = DirectTile(rows=1, columns=14, vectors=1, pixels_outer=True)
    fields = {
        "stride": (1, 1),
        "dilation": (1, 1),
        "padding": (1, 1),
        "group": 16,
        "kept": 16,
        "sparse": True,
        "uniform": True,
    }
    conv = DirectConv(source=layout, out=layout, kernel=(3, 3), epilogue=PLAIN, tile=tile, **fields)
    lines = assembly(conv, AVX512).splitlines()
    multiply_adds = [i for i, line in enumerate(lines) if "vfmadd" in line]
    assert len(multiply_adds) == 14 * 9
    body = lines[multiply_adds[0] : multiply_adds[-1]]
    assert not [line for line in body if "rsp" in line and "zmm" in line]
    assert not [line for line in lines if "vfmadd" in line and "ss" in line.split()[0]]
