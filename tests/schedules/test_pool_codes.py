"""Pooling of codes: maxima of the bytes, exact sums, means rounded half to even."""

import itertools
from dataclasses import dataclass, replace

import numpy as np
import pytest

from subpc.schedules.global_pool import GlobalPool
from subpc.schedules.isa import AVX2, AVX512, VectorIsa
from subpc.schedules.pool2d import Pool2d
from subpc.schedules.quantization import Quantization
from tests.schedules.harness import (
    assembly,
    check_codes,
    cpu_supports,
    into,
    like,
    out_of,
    run_everywhere,
    tensor,
)

FROM_ZERO, SIGNED = (
    Quantization(scale=0.1, zero_point=0),
    Quantization(scale=0.02, zero_point=131),
)
BORDER = 93


@dataclass(frozen=True)
class Window:
    """One axis has the same numbers as the other, but for `size`."""

    size: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int] = (1, 1)

    def out(self) -> tuple[int, ...]:
        """Sizes of the result; the last window may hang over (as ceil_mode has it)."""
        return tuple(
            -(-max(0, n + 2 * p - d * (k - 1) - 1) // s) + 1
            for n, k, s, p, d in zip(
                self.size, self.kernel, self.stride, self.padding, self.dilation, strict=True
            )
        )


WINDOWS = [
    Window((1, 1), (1, 1), (1, 1), (0, 0)),
    Window((7, 7), (3, 3), (1, 1), (1, 1)),
    Window((13, 17), (3, 3), (2, 2), (1, 1)),
    Window((14, 14), (2, 2), (2, 2), (0, 0)),
    Window((11, 75), (5, 3), (3, 1), (2, 1)),
    Window((12, 19), (2, 3), (1, 4), (1, 0)),
    Window((20, 150), (3, 3), (2, 2), (1, 1)),
    Window((17, 19), (15, 15), (2, 1), (7, 7)),
    Window((40, 50), (16, 17), (3, 4), (1, 8)),
]


def taps(window: Window, axis: int, at: int) -> list[int]:
    """Where the window of output `at` reads the image."""
    start = at * window.stride[axis] - window.padding[axis]
    reached = (start + t * window.dilation[axis] for t in range(window.kernel[axis]))
    return [i for i in reached if 0 <= i < window.size[axis]]


def length(window: Window, axis: int, at: int, include: bool) -> int:
    """What a mean divides by along an axis."""
    if not include:
        return len(taps(window, axis, at))
    start = at * window.stride[axis] - window.padding[axis]
    return min(start + window.kernel[axis], window.size[axis] + window.padding[axis]) - start


def reference(kind: str, x: np.ndarray, window: Window, include: bool) -> np.ndarray:
    """float64 values (means) or codes (maxima) of the result, pixel by pixel."""
    result = np.zeros((*x.shape[:2], *window.out()), "float64")
    for row, column in itertools.product(*map(range, window.out())):
        part = x[:, :, taps(window, 0, row)][:, :, :, taps(window, 1, column)]
        if kind == "max":
            result[:, :, row, column] = part.max((2, 3))
        else:
            size = length(window, 0, row, include) * length(window, 1, column, include)
            result[:, :, row, column] = part.sum((2, 3)) / size
    return result


def pool(kind: str, x: np.ndarray, window: Window, **options: object) -> Pool2d:
    """The kernel for codes `x`, from and to frames of one halo unless said otherwise."""
    out = np.zeros((*x.shape[:2], *window.out()))
    fields = {
        "kind": kind,
        "source": like(x, 1, "uint8"),
        "out": like(out, 1, "uint8"),
        "kernel": window.kernel,
        "stride": window.stride,
        "padding": (*window.padding, *window.padding),
        "dilation": window.dilation,
    }
    return Pool2d(**fields | options)  # type: ignore[arg-type]


def codes(window: Window) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, 3, *window.size)).astype("uint8")


@pytest.mark.pairs
@pytest.mark.parametrize("isa", [AVX512, AVX2], ids=lambda isa: isa.name)
@pytest.mark.parametrize("quantization", [FROM_ZERO, SIGNED], ids=["from zero", "signed"])
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_maximum(window: Window, quantization: Quantization, isa: VectorIsa) -> None:
    """A frame that holds zeros may be read as padding where no code is less; else it is not."""
    if not cpu_supports(isa):
        pytest.skip("this CPU lacks the instructions")
    x, lowest = codes(window), quantization.zero_point == 0
    kernel = pool("max", x, window, nonnegative=lowest)
    flat = into(kernel.source, x, 0 if lowest else 255)
    got = run_everywhere(kernel, [flat, np.full(kernel.out.elements, BORDER, "uint8")], isa)
    expected = reference("max", x, window, include=True)
    np.testing.assert_array_equal(got, into(kernel.out, expected, BORDER))


@pytest.mark.pairs
@pytest.mark.parametrize(
    ("include", "isa"),
    [(True, AVX512), (False, AVX512), (True, AVX2)],
    ids=["padded", "valid", "padded, avx2"],
)
@pytest.mark.parametrize("quantization", [FROM_ZERO, SIGNED], ids=["from zero", "signed"])
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_mean(window: Window, include: bool, quantization: Quantization, isa: VectorIsa) -> None:
    """Exactly, ties included: what a code stands for does not matter where that stays the same."""
    if not cpu_supports(isa):
        pytest.skip("this CPU lacks the instructions")
    x, zero = codes(window), quantization.zero_point
    whole = replace(quantization, scale=1.0)
    kernel = pool("avg", x, window, codes=whole, result=whole, count_include_pad=include)
    flat = into(kernel.source, x, 0)
    got = run_everywhere(kernel, [flat, np.full(kernel.out.elements, BORDER, "uint8")], isa)
    expected = np.rint(reference("avg", x.astype("float64") - zero, window, include)) + zero
    np.testing.assert_array_equal(got, into(kernel.out, expected, BORDER))


@pytest.mark.parametrize("halo", [None, 1])
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_mean_of_another_scale_and_as_floats(window: Window, halo: int | None) -> None:
    x = codes(window)
    real = reference("avg", SIGNED.values(x), window, include=True)
    result = Quantization(scale=0.017, zero_point=88)
    source, out = like(x, halo, "uint8"), like(real, halo, "uint8")
    kernel = pool("avg", x, window, source=source, out=out, codes=SIGNED, result=result)
    empty = np.full(out.elements, BORDER, "uint8")
    got = run_everywhere(kernel, [into(source, x), empty], AVX512)
    check_codes(out, got, real, result, BORDER)
    out = like(real, halo)
    kernel = pool("avg", x, window, source=source, out=out, codes=SIGNED)
    got = run_everywhere(kernel, [into(source, x), np.zeros(out.elements, "float32")], AVX512)
    np.testing.assert_allclose(out_of(out, got), real, rtol=1e-6, atol=1e-6)


def test_quantizations_are_for_means_of_codes() -> None:
    x, window = codes(WINDOWS[1]), WINDOWS[1]
    with pytest.raises(ValueError, match="max pooling of uint8 with"):
        pool("max", x, window, codes=SIGNED)
    with pytest.raises(ValueError, match="avg pooling of uint8 with None"):
        pool("avg", x, window)
    with pytest.raises(ValueError, match="a result of uint8"):
        pool("avg", x, window, codes=SIGNED)
    with pytest.raises(ValueError, match="avg pooling of float32 with"):
        GlobalPool(source=tensor(1, 1, 4, 4), codes=SIGNED)


@pytest.mark.parametrize("isa", [AVX512, AVX2], ids=lambda isa: isa.name)
def test_maxima_of_a_stem_are_taken_byte_by_byte(isa: VectorIsa) -> None:
    kernel = Pool2d(
        kind="max",
        source=tensor(1, 64, 112, 112, 1, "uint8"),
        out=tensor(1, 64, 56, 56, 1, "uint8"),
        kernel=(3, 3),
        stride=(2, 2),
        padding=(1, 1, 1, 1),
        nonnegative=True,
    )
    text = assembly(kernel, isa)
    assert "vpmaxub" in text
    assert "vpinsrb" not in text


@pytest.mark.pairs
@pytest.mark.parametrize(
    ("halo", "isa"),
    [(None, AVX512), (0, AVX512), (1, AVX512), (3, AVX512), (1, AVX2)],
    ids=lambda value: getattr(value, "name", str(value)),
)
@pytest.mark.parametrize(
    ("quantization", "border"), [(FROM_ZERO, 0), (SIGNED, 0), (SIGNED, SIGNED.zero_point)], ids=str
)
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 17, 7, 7), (1, 5, 41, 50)], ids=str)
def test_global_mean(
    shape: tuple[int, int, int, int],
    quantization: Quantization,
    border: int,
    halo: int | None,
    isa: VectorIsa,
) -> None:
    if not cpu_supports(isa):
        pytest.skip("this CPU lacks the instructions")
    source = tensor(*shape, halo, "uint8")
    x = np.random.default_rng(0).integers(0, 256, shape).astype("uint8")
    flat, zero = into(source, x, border), quantization.zero_point
    whole = replace(quantization, scale=1.0)
    floats = run_everywhere(
        GlobalPool(source=source, codes=quantization),
        [flat, np.zeros(shape[0] * shape[1], "float32")],
        isa,
    )
    real = quantization.values(x).mean((2, 3))
    np.testing.assert_allclose(floats.reshape(shape[:2]), real, rtol=1e-5, atol=1e-6)
    got = run_everywhere(
        GlobalPool(source=source, codes=whole, result=whole),
        [flat, np.zeros(shape[0] * shape[1], "uint8")],
        isa,
    )
    exact = np.rint((x.astype("float64") - zero).mean((2, 3))) + zero
    np.testing.assert_array_equal(got.reshape(shape[:2]), exact)
