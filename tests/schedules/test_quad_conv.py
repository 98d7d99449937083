"""schedules/quad_conv.py against integer sums and the same float32 steps in NumPy: bit for bit."""

from dataclasses import replace

import pytest

from subpc.schedules.activation import NONE, Activation
from subpc.schedules.quad_tile import QuadTile
from subpc.schedules.quantization import Quantization
from tests.schedules.harness import DOT_ISAS, cpu_supports
from tests.schedules.quad_cases import TILE, Case, check


@pytest.mark.parametrize("size", [(1, 1), (1, 16), (5, 3), (7, 7), (13, 17), (4, 70)])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_planes_of_any_size(size: tuple[int, int], kernel: int) -> None:
    check(Case(size=size, kernel=kernel, dilation=1, c_in=12))


@pytest.mark.parametrize("c_in", [1, 3, 4, 7, 33])
def test_channels_that_four_does_not_divide(c_in: int) -> None:
    check(Case(c_in=c_in))


@pytest.mark.parametrize("n", [1, 4, 7, 8, 16, 24, 32])
def test_any_number_of_filters_a_group(n: int) -> None:
    check(Case(n=n, c_out=2 * n, kept=(5, 5)))


def test_filters_that_are_not_there() -> None:
    check(Case(n=16, c_out=21))


@pytest.mark.parametrize("kept", [(1, 1, 1), (6, 6, 6), (3, 0, 8), (4, 13, 9)])
def test_groups_keep_what_they_keep(kept: tuple[int, ...]) -> None:
    check(Case(c_in=13, c_out=48, kept=kept, tile=replace(TILE, blocks=2)))


@pytest.mark.parametrize("zero_point", [0, 1, 128, 255])
def test_zero_points(zero_point: int) -> None:
    check(
        Case(zero_point=zero_point, activation=NONE, result=Quantization(scale=0.3, zero_point=131))
    )


@pytest.mark.parametrize("residual", ["uint8", "float32"])
@pytest.mark.parametrize("codes", [True, False])
def test_residuals(residual: str, codes: bool) -> None:
    check(Case(residual=residual, codes=codes))


def test_a_residual_is_overwritten() -> None:
    check(Case(residual="uint8", in_place=True))


@pytest.mark.parametrize("kind", ["none", "relu", "relu6", "leaky_relu"])
def test_activations(kind: str) -> None:
    result = Quantization(scale=0.5, zero_point=100 if kind == "leaky_relu" else 0)
    activation = Activation(kind=kind, slope=0.1 if kind == "leaky_relu" else 0.0)
    if kind == "relu6":
        result = Quantization(scale=6 / 255, zero_point=0)
    check(Case(activation=activation, result=result))


def test_a_relu_before_a_zero_point() -> None:
    check(Case(result=Quantization(scale=0.4, zero_point=40)))


def test_sums_at_the_corners_are_exact() -> None:
    """All products as large as they get: 255 * 127 in every place, four of them and many quads."""
    check(
        Case(
            c_in=64,
            kernel=3,
            weights=127,
            zero_point=255,
            result=Quantization(scale=40, zero_point=99),
            activation=NONE,
        )
    )


@pytest.mark.parametrize(
    "tile",
    [
        QuadTile(rows=1, vectors=1, band=1, blocks=1),
        QuadTile(rows=8, vectors=3, band=3, blocks=1),
        QuadTile(rows=4, vectors=6, band=1, blocks=3, tail=True),
        QuadTile(rows=16, vectors=1, band=7, blocks=2),
        QuadTile(rows=5, vectors=5, band=2, blocks=2, tail=True),
    ],
    ids=str,
)
def test_every_schedule_gives_the_same(tile: QuadTile) -> None:
    check(Case(tile=tile, size=(14, 14), c_out=64, kept=(7, 7, 7, 7), c_in=20))


@pytest.mark.pairs
@pytest.mark.parametrize("size", [(7, 7), (5, 3), (14, 14), (1, 9)])
@pytest.mark.parametrize("kept", [(), (9, 9, 9, 9), (3, 12, 1, 7)], ids=str)
@pytest.mark.parametrize("pixels", ["rows", "a part of one"])
def test_lanes_are_filters(size: tuple[int, int], kept: tuple[int, ...], pixels: str) -> None:
    width = size[1]
    rows = (
        width * max(1, 14 // width)
        if pixels == "rows"
        else width // (2 if width % 2 == 0 else width)
    )
    tile = QuadTile(rows=rows, vectors=1 if kept else 2, band=1, blocks=2, filter_lanes=True)
    check(
        Case(
            tile=tile,
            size=size,
            c_out=64,
            n=16 if kept else 32,
            kept=kept,
            c_in=13,
            residual="uint8",
            zero_point=3,
            batch=2,
        )
    )


def test_batches_and_dilation() -> None:
    check(Case(batch=3, dilation=2, size=(8, 9)))


@pytest.mark.parametrize("name", DOT_ISAS)
def test_instruction_sets(name: str) -> None:
    isa = DOT_ISAS[name]
    if not cpu_supports(isa):
        pytest.skip(f"this CPU has no {name}")
    tile = QuadTile(rows=4, vectors=2, band=2, blocks=1)
    check(Case(tile=tile, narrow=None if isa.dot == "vnni" else 0), isa)
