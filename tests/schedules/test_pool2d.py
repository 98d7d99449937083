"""Pooling against PyTorch: awkward windows, both layouts, every instruction set."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from subpc.schedules.global_pool import GlobalPool
from subpc.schedules.isa import AVX512, GENERIC, VectorIsa
from subpc.schedules.pool2d import Pool2d
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

Case = tuple[
    tuple[int, int, int, int],
    tuple[int, int],
    tuple[int, int],
    tuple[int, int],
    tuple[int, int],
    bool,
]
# (batch, channels, height, width), kernel, stride, padding, dilation, ceil_mode
CASES: list[Case] = [
    ((1, 1, 1, 1), (1, 1), (1, 1), (0, 0), (1, 1), False),
    ((3, 5, 7, 7), (3, 3), (1, 1), (1, 1), (1, 1), False),
    ((1, 3, 13, 17), (3, 3), (2, 2), (1, 1), (1, 1), False),
    ((1, 17, 14, 14), (2, 2), (2, 2), (0, 0), (1, 1), False),
    ((2, 3, 13, 40), (3, 3), (2, 2), (0, 0), (1, 1), True),
    ((1, 2, 11, 75), (5, 3), (3, 1), (2, 1), (1, 1), True),
    ((1, 2, 12, 19), (2, 3), (1, 4), (1, 0), (1, 1), True),
    ((1, 3, 56, 56), (3, 3), (2, 2), (1, 1), (1, 1), False),
]


def reference(kind: str, x: torch.Tensor, case: Case, include: bool) -> np.ndarray:
    _, kernel, stride, padding, dilation, ceil = case
    if kind == "max":
        return functional.max_pool2d(x, kernel, stride, padding, dilation, ceil).numpy()
    return functional.avg_pool2d(x, kernel, stride, padding, ceil, include).numpy()


def check(
    kind: str,
    case: Case,
    halos: tuple[int | None, int | None],
    isa: VectorIsa,
    include: bool,
    positive: bool,
) -> None:
    if not cpu_supports(isa):
        pytest.skip("this CPU lacks the instructions")
    shape, kernel, stride, padding, dilation, _ = case
    x = np.random.default_rng(0).standard_normal(shape).astype("float32")
    x = np.maximum(x, 0) if positive else x - 1
    expected = reference(kind, torch.tensor(x), case, include)
    source, out = tensor(*shape, halos[0]), like(expected, halos[1])
    pool = Pool2d(
        kind=kind,
        source=source,
        out=out,
        kernel=kernel,
        stride=stride,
        padding=(*padding, *padding),
        dilation=dilation,
        count_include_pad=include,
        nonnegative=positive,
    )
    got = run_everywhere(pool, [into(source, x), np.zeros(out.elements, "float32")], isa)
    check_tensor(out, got, expected, tolerance=0 if kind == "max" else 1e-5)


@pytest.mark.pairs
@pytest.mark.parametrize("isa", ISAS.values(), ids=ISAS)
@pytest.mark.parametrize("halos", [(None, 1), (2, 1), (1, None)], ids=str)
@pytest.mark.parametrize("case", CASES, ids=lambda c: "x".join(map(str, c[0])))
@pytest.mark.parametrize("kind", ["max", "avg"])
def test_pool(kind: str, case: Case, halos: tuple[int | None, int | None], isa: VectorIsa) -> None:
    check(kind, case, halos, isa, include=True, positive=False)


@pytest.mark.pairs
@pytest.mark.parametrize("isa", [AVX512, GENERIC], ids=["avx512", "generic"])
@pytest.mark.parametrize("halo", [None, 1, 2])
@pytest.mark.parametrize("case", CASES, ids=lambda c: "x".join(map(str, c[0])))
def test_mean_of_valid_pixels(case: Case, halo: int | None, isa: VectorIsa) -> None:
    check("avg", case, (halo, 1), isa, include=False, positive=False)


@pytest.mark.parametrize("halo", [None, 1, 3])
@pytest.mark.parametrize("case", CASES, ids=lambda c: "x".join(map(str, c[0])))
def test_zero_halo_as_padding(case: Case, halo: int | None) -> None:
    check("max", case, (halo, 1), AVX512, include=True, positive=True)


@pytest.mark.parametrize("halo", [None, 1])
def test_dilated_maximum(halo: int | None) -> None:
    check(
        "max",
        ((2, 3, 12, 21), (3, 3), (2, 2), (1, 1), (3, 2), False),
        (halo, 1),
        AVX512,
        include=True,
        positive=False,
    )


LARGE: list[Case] = [
    ((1, 2, 64, 90), (60, 80), (1, 3), (0, 0), (1, 1), False),
    ((2, 3, 17, 19), (15, 15), (2, 1), (7, 7), (1, 1), False),
    ((1, 2, 20, 30), (16, 17), (3, 4), (1, 8), (1, 1), True),
    ((1, 1, 300, 1), (300, 1), (1, 1), (0, 0), (1, 1), False),
]


@pytest.mark.pairs
@pytest.mark.parametrize("isa", ISAS.values(), ids=ISAS)
@pytest.mark.parametrize("halo", [None, 1])
@pytest.mark.parametrize("case", LARGE, ids=lambda c: "x".join(map(str, c[1])))
@pytest.mark.parametrize("kind", ["max", "avg", "avg of valid"])
def test_windows_too_large_to_be_written_out(
    kind: str, case: Case, halo: int | None, isa: VectorIsa
) -> None:
    check(kind[:3], case, (halo, 1), isa, include=kind == "avg", positive=False)


def test_large_dilated_maximum() -> None:
    check(
        "max",
        ((1, 2, 50, 60), (14, 15), (2, 1), (5, 7), (3, 2), False),
        (None, 1),
        AVX512,
        include=True,
        positive=False,
    )


def test_code_does_not_grow_with_the_window() -> None:
    source, out = tensor(1, 1, 100, 120), tensor(1, 1, 41, 41)
    pool = Pool2d(
        kind="avg", source=source, out=out, kernel=(60, 80), stride=(1, 1), padding=(0, 0, 0, 0)
    )
    assert len(assembly(pool, AVX512).splitlines()) < 2000


def test_asymmetric_padding() -> None:
    x = np.random.default_rng(0).standard_normal((1, 2, 12, 20)).astype("float32") - 2
    expected = functional.max_pool2d(
        functional.pad(torch.tensor(x), (0, 1, 0, 1), value=float("-inf")), 3, 2
    ).numpy()
    source, out = tensor(1, 2, 12, 20, 1), like(expected, 1)
    pool = Pool2d(
        kind="max", source=source, out=out, kernel=(3, 3), stride=(2, 2), padding=(0, 0, 1, 1)
    )
    check_tensor(
        out,
        run_everywhere(pool, [into(source, x), np.zeros(out.elements, "float32")], AVX512),
        expected,
        0,
    )


def test_empty_window_is_refused() -> None:
    with pytest.raises(ValueError, match="entirely"):
        Pool2d(
            kind="max",
            source=tensor(1, 1, 4, 4),
            out=tensor(1, 1, 4, 4),
            kernel=(2, 2),
            stride=(2, 2),
            padding=(0, 0, 4, 4),
        )


def test_stem_pool_uses_vectors() -> None:
    pool = Pool2d(
        kind="max",
        source=tensor(1, 64, 112, 112, 1),
        out=tensor(1, 64, 56, 56, 1),
        kernel=(3, 3),
        stride=(2, 2),
        padding=(1, 1, 1, 1),
        nonnegative=True,
    )
    text = assembly(pool, AVX512)
    assert "vmaxss" not in text
    assert text.count("vpermt2ps") + text.count("vpermi2ps") > 0


@pytest.mark.pairs
@pytest.mark.parametrize("isa", ISAS.values(), ids=ISAS)
@pytest.mark.parametrize("halo", [None, 0, 1, 3])
@pytest.mark.parametrize(
    "shape",
    [(1, 1, 1, 1), (3, 17, 7, 7), (2, 3, 13, 17), (1, 300, 14, 14), (1, 5, 41, 50)],
    ids=str,
)
def test_global_pool(shape: tuple[int, int, int, int], halo: int | None, isa: VectorIsa) -> None:
    if not cpu_supports(isa):
        pytest.skip("this CPU lacks the instructions")
    source = tensor(*shape, halo)
    x = np.random.default_rng(0).standard_normal(shape).astype("float32")
    flat = into(source, x)
    if halo == 0:  # what lies behind the last pixel is nobody's
        flat.reshape(-1, source.frame.plane)[:, shape[2] * shape[3] :] = np.nan
    got = run_everywhere(
        GlobalPool(source=source), [flat, np.zeros(shape[0] * shape[1], "float32")], isa
    )
    np.testing.assert_allclose(got.reshape(shape[:2]), x.mean((2, 3)), rtol=1e-5, atol=1e-6)
