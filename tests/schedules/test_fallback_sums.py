"""Long sums of the fallback are as exact as PyTorch's, whatever their length and however the tensor
lies in memory."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import tvm_ffi
from tvm import relax

from subpc.schedules.fallback import Fallback
from subpc.schedules.fallback_sums import with_partial_sums
from subpc.schedules.isa import AVX2, AVX512, VectorIsa
from tests.schedules.harness import assembly, run_everywhere
from tests.schedules.test_fallback import legalised

op = relax.op
F32 = "float32"
WORSE = 4  # times PyTorch's own error, beside the last place
ULP = 2e-7
Function = Callable[..., Any]


def errors(
    shapes: list[tuple[int, ...]],
    build: Function,
    reference: Function,
    values: list[np.ndarray],
    isa: VectorIsa,
) -> tuple[float, float]:
    """Ours and PyTorch's error against float64, as a share of the largest result."""
    (func,) = legalised([(shape, F32) for shape in shapes], build)
    exact = reference(*(torch.tensor(v, dtype=torch.float64) for v in values)).numpy()
    theirs = reference(*map(torch.tensor, values)).numpy()
    got = run_everywhere(Fallback.of(func, "op"), [*values, np.zeros(exact.shape, F32)], isa)
    scale = np.abs(exact).max()
    return float(np.abs(got - exact).max() / scale), float(np.abs(theirs - exact).max() / scale)


def check(
    shapes: list[tuple[int, ...]],
    build: Function,
    reference: Function,
    isa: VectorIsa = AVX512,
    fill: float | None = None,
) -> None:
    rng = np.random.default_rng(0)
    values = [
        np.full(shape, fill, F32) if fill is not None else rng.random(shape, F32)
        for shape in shapes
    ]
    ours, theirs = errors(shapes, build, reference, values, isa)
    assert ours <= WORSE * theirs + (2 * ULP if fill is not None else ULP)


@pytest.mark.parametrize("length", [1, 17, 33, 127, 1000, 4099, 18000, 1_000_003])
def test_rows(length: int) -> None:
    for isa in (AVX2, AVX512):
        check([(2, length)], lambda x: op.sum(x, axis=1), lambda x: x.sum(1), isa)


@pytest.mark.parametrize("length", [4099, 200_000])
def test_equal_terms_whose_rounding_errors_all_have_one_sign(length: int) -> None:
    check([(2, length)], lambda x: op.sum(x, axis=1), lambda x: x.sum(1), fill=0.1)
    check([(1, length, 32)], lambda x: op.sum(x, axis=1), lambda x: x.sum(1), fill=0.1)


CASES: dict[str, tuple[list[tuple[int, ...]], Function, Function]] = {
    "planes": ([(2, 3, 100, 101)], lambda x: op.mean(x, axis=[2, 3]), lambda x: x.mean((2, 3))),
    "everything": ([(3, 7, 5003)], lambda x: op.sum(x), lambda x: x.sum()),
    "not in one piece": ([(20, 3, 501)], lambda x: op.sum(x, axis=[0, 2]), lambda x: x.sum((0, 2))),
    "columns": ([(2, 5000, 16)], lambda x: op.sum(x, axis=1), lambda x: x.sum(1)),
    "few columns": ([(2, 5003, 3)], lambda x: op.sum(x, axis=1), lambda x: x.sum(1)),
    "softmax": ([(2, 18_000)], lambda x: op.nn.softmax(x, axis=1), lambda x: x.softmax(1)),
    "softmax over channels": (
        [(1, 6625, 5)],
        lambda x: op.nn.softmax(x, axis=1),
        lambda x: x.softmax(1),
    ),
    "product": ([(3, 5000), (5000, 64)], op.matmul, torch.matmul),
    "product of odd sizes": ([(3, 5003), (5003, 19)], op.matmul, torch.matmul),
    "with one column": ([(3, 5003), (5003, 1)], op.matmul, torch.matmul),
    "batched product": ([(2, 3, 700), (2, 700, 33)], op.matmul, torch.matmul),
    "convolution": (
        [(1, 64, 4, 5, 5), (8, 64, 3, 3, 3)],
        lambda x, w: op.nn.conv3d(x, w),
        torch.conv3d,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_other_sums(name: str) -> None:
    check(*CASES[name])


def test_a_border_is_not_read() -> None:
    """What a sum asks of its position stays: padding inside of an average."""
    x = np.random.default_rng(0).random((1, 2, 40, 40), F32) + 1
    (func,) = legalised(
        [(x.shape, F32)],
        lambda v: op.nn.avg_pool2d(v, (37, 37), (3, 3), (18, 18), count_include_pad=True),
    )
    expected = torch.nn.functional.avg_pool2d(torch.tensor(x), 37, 3, 18).numpy()
    got = run_everywhere(Fallback.of(func, "op"), [x, np.zeros(expected.shape, F32)], AVX512)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize("length", [33, 1000])
def test_maxima_are_exact(length: int) -> None:
    x = -np.random.default_rng(0).random((3, length), F32)
    (func,) = legalised([(x.shape, F32)], lambda v: op.max(v, axis=1))
    assert np.array_equal(
        run_everywhere(Fallback.of(func, "op"), [x, np.zeros(3, F32)], AVX512), x.max(1)
    )


def test_a_row_becomes_vectors() -> None:
    (func,) = legalised([((2, 1000), F32)], lambda x: op.sum(x, axis=1))
    text = assembly(Fallback.of(func), AVX512)
    assert text.count("vaddps") > 4
    assert text.count("zmm") > 8


def test_short_sums_stay_as_they_are() -> None:
    (func,) = legalised([((2, 20, 8), F32)], lambda x: op.sum(x, axis=1))
    body = Fallback.of(func).prim_func("kernel", AVX512).body
    assert tvm_ffi.structural_equal(with_partial_sums(body, 16), body)
