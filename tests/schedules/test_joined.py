"""Several layers in one loop against PyTorch, layer by layer."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from subpc.passes.pack_blocks import pixel_mask
from subpc.schedules.activation import Activation
from subpc.schedules.direct_conv import DirectConv
from subpc.schedules.direct_tile import DirectTile
from subpc.schedules.epilogue import Epilogue
from subpc.schedules.flat_conv import FlatConv
from subpc.schedules.flat_tile import FlatTile
from subpc.schedules.grouped_conv import GroupedConv
from subpc.schedules.grouped_tile import GroupedTile
from subpc.schedules.isa import AVX512, VectorIsa
from subpc.schedules.joined import Joined, Stage, can_join
from tests.schedules.harness import ISAS, call, check_tensor, cpu_supports, into, tensor
from tests.schedules.sparse import Filters, random_filters, tap_offsets

RELU = Activation(kind="relu")
PLAIN = Epilogue(activation=RELU)
ADDED, IN_PLACE = replace(PLAIN, residual=True), replace(PLAIN, residual=True, in_place=True)
Arrays = dict[str, np.ndarray]
Weights = Filters | np.ndarray


def flat(
    filters: Filters, size: tuple[int, int], tile: tuple[int, int, int] = (4, 2, 1), **fields: Any
) -> FlatConv:
    """A flat convolution with ReLU on planes of `size`; tile: rows, vectors, blocks."""
    c_out, c_in, *kernel = filters.weight.shape
    batch, halo = fields.pop("batch", 1), fields.pop("halo", 1)
    out = tensor(batch, c_out, *size, halo)
    (rows, vectors, blocks), outer = tile, fields.pop("pixels_outer", False)
    given = {"bounds": (), "sparse": True, "epilogue": PLAIN} | fields
    return FlatConv(
        source=tensor(batch, c_in, *size, halo),
        phases=1,
        out=out,
        taps=tap_offsets(
            out.frame, (kernel[0], kernel[1]), (1, 1), (kernel[0] // 2, kernel[1] // 2)
        ),
        group=filters.n,
        kept=filters.count,
        uniform=filters.uniform,
        tile=FlatTile(rows=rows, vectors=vectors, blocks=blocks, pixels_outer=outer),
        **given,
    )


def direct(filters: Filters, size: tuple[int, int], stride: int = 1, **fields: Any) -> DirectConv:
    """A convolution with ReLU and channels in the lanes; size: of the source."""
    c_out, c_in, *kernel = filters.weight.shape
    out = tensor(1, c_out, -(-size[0] // stride), -(-size[1] // stride), 1)
    return DirectConv(
        source=tensor(1, c_in, *size, 1),
        out=out,
        kernel=(kernel[0], kernel[1]),
        stride=(stride, stride),
        dilation=(1, 1),
        padding=(kernel[0] // 2, kernel[1] // 2),
        group=filters.n,
        kept=filters.count,
        sparse=True,
        uniform=True,
        tile=DirectTile(rows=2, columns=fields.pop("columns", 5), vectors=1, pixels_outer=False),
        **({"epilogue": PLAIN} | fields),
    )


def depthwise(
    source: Stage, stride: int = 1, kernel: int = 3, rows: int | None = None, **fields: Any
) -> GroupedConv:
    """A depthwise convolution of the result of `source`, without activation."""
    height, width, channels = source.out.frame.height, source.out.frame.width, source.out.channels
    out = tensor(
        source.out.batch, channels, -(-height // stride), -(-width // stride), source.out.frame.halo
    )
    pad, options = kernel // 2, {"tile": GroupedTile(rows=rows)} | fields
    strides = {"stride": (stride, stride), "padding": (pad, pad)}
    return GroupedConv(
        source=source.out, out=out, groups=channels, kernel=(kernel, kernel), **strides, **options
    )  # type: ignore[arg-type]


def planes(kernel: GroupedConv, seed: int) -> np.ndarray:
    """Weights of a depthwise convolution."""
    return (
        np.random.default_rng(seed)
        .standard_normal((kernel.groups, 1, *kernel.kernel))
        .astype("float32")
    )


def weight_operands(stage: Stage, weights: Weights, source_plane: int) -> Arrays:
    """w, index, starts."""
    if isinstance(weights, np.ndarray):
        return {"w": weights.ravel()}
    assert not isinstance(stage, GroupedConv)
    rows = stage.tile.rows if isinstance(stage, FlatConv) else 16
    return weights.operands(rows, source_plane, stage.sparse)


def convolve(
    stage: Stage, x: torch.Tensor, weights: Weights, bias: np.ndarray, added: torch.Tensor | None
) -> torch.Tensor:
    """What a stage computes, by PyTorch."""
    w = torch.tensor(weights if isinstance(weights, np.ndarray) else weights.weight)
    stride = 1 if isinstance(stage, FlatConv) else stage.stride
    y = functional.conv2d(
        x, w, torch.tensor(bias), stride, w.shape[-1] // 2, 1, x.shape[1] // w.shape[1]
    )
    y = y if added is None else y + added
    return functional.relu(y) if stage.epilogue.activation.kind == "relu" else y


def check(
    stages: tuple[Stage, ...],
    weights: list[Weights],
    kept: tuple[bool, ...],
    bands: int,
    isa: VectorIsa = AVX512,
) -> None:
    """Every result that is kept equals PyTorch's, and one and two threads agree to the bit."""
    if not cpu_supports(isa):
        pytest.skip("this CPU lacks the instructions")
    joined, rng, source = (
        Joined(stages=stages, kept=kept, bands=bands),
        np.random.default_rng(1),
        stages[0].source,
    )
    x = rng.standard_normal(
        (source.batch, source.channels, source.frame.height, source.frame.width)
    ).astype("float32")
    arrays, expected, value = {"x_0": into(source, x)}, [], torch.tensor(x)
    for number, (stage, given) in enumerate(zip(stages, weights, strict=True)):
        bias = rng.standard_normal(stage.out.channels).astype("float32")
        mine = weight_operands(stage, given, joined.source_plane(number))
        mine |= {
            "bias": bias,
            "mask": pixel_mask(stage.out.frame),
            "y": np.zeros(stage.out.elements, "float32"),
        }
        frame, added = stage.out.frame, None
        if stage.epilogue.residual:
            residual = rng.standard_normal(
                (stage.out.batch, stage.out.channels, frame.height, frame.width)
            ).astype("float32")
            mine["residual"] = into(stage.out, residual)
            added = torch.tensor(residual)
            mine["y"] = mine["residual"].copy() if stage.epilogue.in_place else mine["y"]
        value = convolve(stage, value, given, bias, added)
        expected.append(value.numpy())
        arrays |= {f"{name}_{number}": array for name, array in mine.items()}
    results = []
    for threads in (1, 2):
        copies = [arrays[name].copy() for name in joined.operands]
        call(joined, *copies, isa=isa, threads=threads)
        results.append(dict(zip(joined.operands, copies, strict=True)))
    for number, stage in enumerate(stages):
        if kept[number]:
            np.testing.assert_array_equal(results[0][f"y_{number}"], results[1][f"y_{number}"])
            check_tensor(stage.out, results[0][f"y_{number}"], expected[number])


@pytest.mark.pairs
@pytest.mark.parametrize("isa", ISAS.values(), ids=ISAS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
def test_expansion_depthwise_projection(kernel: int, stride: int, isa: VectorIsa) -> None:
    size, halo = (12, 11), kernel // 2
    a, b = (
        random_filters(32, 12, (1, 1), n=8, sparsity=0.5),
        random_filters(16, 32, (1, 1), n=4, sparsity=0.7, seed=1),
    )
    first = flat(a, size, (4, 2, 2), batch=2, halo=halo)
    second = depthwise(first, stride, kernel)
    last = flat(b, (12 // stride, -(-11 // stride)), (4, 3, 1), batch=2, halo=halo)
    weights: list[Weights] = [a, planes(second, 2), b]
    for bands in (1, 2, 6 // stride):
        check((first, second, last), weights, (False, False, True), bands, isa)
    check((first, second), weights[:2], (False, True), 3, isa)
    check((second, last), weights[1:], (False, True), 3, isa)


@pytest.mark.parametrize(
    "size", [(1, 1), (2, 31), (7, 7), (14, 14), (5, 17), (28, 23), (4, 64)], ids=str
)
@pytest.mark.parametrize("vectors", [(1, 1), (4, 1), (1, 4), (3, 2)], ids=str)
def test_sizes(vectors: tuple[int, int], size: tuple[int, int]) -> None:
    a, b = (
        random_filters(16, 5, (1, 1), n=8, sparsity=0.4),
        random_filters(8, 16, (1, 1), n=4, sparsity=0.5, seed=1),
    )
    first = flat(a, size, (4, vectors[0], 1), pixels_outer=True)
    second = depthwise(first, rows=min(size[0], 5))
    last = flat(b, size, (2, vectors[1], 3))
    for bands in {1, size[0]}:
        check((first, second, last), [a, planes(second, 2), b], (False, False, True), bands)


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize(
    "epilogue", [ADDED, IN_PLACE, PLAIN], ids=["residual", "in place", "plain"]
)
def test_points_with_residuals(epilogue: Epilogue, *, kept: bool) -> None:
    a, b = (
        random_filters(16, 12, (1, 1), n=8, sparsity=0.0),
        random_filters(8, 16, (1, 1), n=8, sparsity=0.5, uniform=False, seed=1),
    )
    if epilogue == PLAIN or kept:
        check(
            (flat(a, (9, 11), epilogue=epilogue), flat(b, (9, 11), (8, 3, 1))),
            [a, b],
            (kept, True),
            3,
        )
    check(
        (flat(a, (9, 11)), flat(b, (9, 11), (8, 3, 1), epilogue=epilogue)), [a, b], (kept, True), 3
    )


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kept", [False, True])
def test_bottleneck(stride: int, *, kept: bool) -> None:
    a, b = (
        random_filters(32, 12, (3, 3), n=16, sparsity=0.5),
        random_filters(48, 32, (1, 1), n=16, sparsity=0.5, seed=1),
    )
    c, size = (
        random_filters(16, 48, (1, 1), n=16, sparsity=0.5, seed=2),
        (12 // stride, -(-11 // stride)),
    )
    second, third = (
        flat(b, size, (8, 2, 1), epilogue=IN_PLACE if kept else PLAIN),
        flat(c, size, (4, 5, 1)),
    )
    check((direct(a, (12, 11), stride), second, third), [a, b, c], (False, kept, True), 2)
    second = direct(b, size, epilogue=IN_PLACE if kept else PLAIN, columns=size[1])  # type: ignore[assignment]
    check((direct(a, (12, 11), stride), second, direct(c, size)), [a, b, c], (False, kept, True), 3)


def test_flat_taps_first_and_no_halo() -> None:
    a, b = (
        random_filters(16, 12, (3, 3), n=4, sparsity=0.5),
        random_filters(8, 16, (1, 1), n=4, sparsity=0.5, seed=1),
    )
    check((flat(a, (8, 11)), flat(b, (8, 11))), [a, b], (False, True), 4)
    c = random_filters(16, 12, (1, 1), n=8, sparsity=0.0)
    check(
        (flat(c, (7, 9), halo=0, sparse=False), flat(b, (7, 9), halo=0)), [c, b], (False, True), 7
    )


def test_what_cannot_be_joined() -> None:
    filters, wide = (
        random_filters(16, 16, (1, 1), n=8, sparsity=0.5),
        random_filters(16, 16, (3, 3), n=8, sparsity=0.5),
    )
    first = flat(filters, (9, 11))
    planes_, yes, no = depthwise(first), (False, True), (True, True)
    assert can_join((first, first), yes, 3)
    assert can_join((first, planes_), yes, 3)
    assert not can_join((first, planes_), no, 3)  # its neighbours' rows would be overwritten
    assert not can_join((first, first), yes, 2)  # 9 rows
    assert not can_join((first, first), yes, 0)
    assert not can_join((first, first), (False, False), 3)
    assert not can_join((replace(first, epilogue=ADDED), first), yes, 3)
    assert not can_join((planes_, depthwise(planes_)), yes, 3)
    assert not can_join((first, flat(wide, (9, 11))), yes, 3)
    assert not can_join((first, replace(planes_, groups=8)), yes, 3)
    assert not can_join((flat(wide, (9, 11)), planes_), yes, 3)  # would read rows beyond the halo
    assert not can_join((first, flat(filters, (9, 11), halo=2)), yes, 3)
    assert not can_join((first, replace(first, tile=replace(first.tile, split=2))), yes, 3)
    with pytest.raises(ValueError, match="cannot be computed in 2 bands"):
        Joined(stages=(first, first), kept=yes, bands=2)
