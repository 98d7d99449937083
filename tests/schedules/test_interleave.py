"""Small planes become one large plane, exactly, and the halo stays zero."""

import numpy as np
import pytest

from subpc.schedules.activation import Activation
from subpc.schedules.interleave import NOWHERE, Interleave
from subpc.schedules.isa import AVX2, AVX512, GENERIC, VectorIsa
from subpc.schedules.quantization import Quantization
from tests.schedules.harness import (
    ISAS,
    assembly,
    check_tensor,
    cpu_supports,
    into,
    run_everywhere,
    tensor,
)

CODES = Quantization(scale=0.1, zero_point=11)


def reference(x: np.ndarray, kernel: Interleave, fill: np.ndarray) -> np.ndarray:
    """The definition, pixel by pixel; fill: as it stands in the result."""
    out, (rows, columns) = kernel.out, kernel.factors
    y = np.empty(out.shape, x.dtype)
    for c in range(out.channels):
        for row in range(out.frame.height):
            for column in range(out.frame.width):
                m, r = divmod(row + kernel.crop[0], rows)
                n, q = divmod(column + kernel.crop[1], columns)
                start, step = kernel.starts[r * columns + q], kernel.steps[r * columns + q]
                y[:, c, row, column] = fill[c] if start == NOWHERE else x[:, start + c * step, m, n]
    return y


def phases(factors: tuple[int, int], channels: int, order: str) -> dict[str, tuple[int, ...]]:
    count = factors[0] * factors[1]
    if order == "pixel shuffle":
        return {"starts": tuple(range(count)), "steps": (count,) * count}
    if order == "by phase":
        return {"starts": tuple(channels * p for p in range(count)), "steps": (1,) * count}
    if order == "nearest":
        return {"starts": (0,) * count, "steps": (1,) * count}
    places = np.random.default_rng(1).permutation(count)
    return {
        "starts": tuple(NOWHERE if p % 3 == 1 else channels * int(p) for p in places),
        "steps": (1,) * count,
    }


@pytest.mark.pairs
@pytest.mark.parametrize(
    ("quantization", "isa"),
    [*((None, isa) for isa in ISAS.values()), (CODES, AVX512), (CODES, AVX2)],
    ids=lambda value: getattr(value, "name", "codes" if value else "floats"),
)
@pytest.mark.parametrize("order", ["pixel shuffle", "by phase", "nearest", "with gaps"])
@pytest.mark.parametrize(
    ("size", "factors", "crop", "less"),
    [
        ((1, 1), (2, 2), (0, 0), (0, 0)),
        ((3, 5), (2, 2), (1, 1), (0, 1)),
        ((2, 19), (2, 3), (0, 2), (1, 0)),
        ((4, 40), (1, 2), (0, 1), (0, 1)),
        ((3, 33), (4, 4), (3, 1), (2, 3)),
        ((2, 150), (2, 2), (1, 1), (1, 1)),
        ((2, 1), (3, 5), (1, 4), (0, 0)),
    ],
    ids=str,
)
def test_interleave(
    size: tuple[int, int],
    factors: tuple[int, int],
    crop: tuple[int, int],
    less: tuple[int, int],
    order: str,
    quantization: Quantization | None,
    isa: VectorIsa,
) -> None:
    if not cpu_supports(isa):
        pytest.skip("this CPU lacks the instructions")
    channels, rng = 3, np.random.default_rng(0)
    height, width = (
        n * f - c - cut for n, f, c, cut in zip(size, factors, crop, less, strict=True)
    )
    dtype = "uint8" if quantization else "float32"
    source = tensor(2, channels * factors[0] * factors[1], *size, 1, dtype)
    x = np.abs(rng.standard_normal((2, source.channels, *size)) * 50).astype(dtype)
    out, fill = tensor(2, channels, height, width, 2, dtype), np.array([-1, 2, 3], "float32")
    kernel = Interleave(
        source=source,
        out=out,
        factors=factors,
        crop=crop,
        activation=Activation(kind="relu"),
        quantization=quantization,
        **phases(factors, channels, order),
    )
    operands = {"x": into(source, x), "fill": fill, "y": np.zeros(out.elements, dtype)}
    got = run_everywhere(kernel, [operands[name] for name in kernel.operands], isa)
    filled = np.maximum(fill, 0)
    expected = reference(x, kernel, quantization.codes(filled) if quantization else filled)
    check_tensor(out, got, expected, tolerance=0)


@pytest.mark.parametrize("wrong", [{"crop": (0, 2)}, {"starts": (0,)}], ids=str)
def test_what_lies_outside_is_refused(wrong: dict[str, tuple[int, ...]]) -> None:
    options = {"factors": (1, 2), "crop": (0, 0), "starts": (0, 1), "steps": (2, 2)} | wrong
    with pytest.raises(ValueError, match=r"pixels from|starts for"):
        Interleave(source=tensor(1, 2, 3, 4), out=tensor(1, 1, 3, 7), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("isa", [AVX512, GENERIC], ids=["avx512", "generic"])
def test_bytes_are_shuffled_in_registers(isa: VectorIsa) -> None:
    kernel = Interleave(
        source=tensor(1, 64, 32, 64, dtype="uint8"),
        out=tensor(1, 16, 64, 128, dtype="uint8"),
        factors=(2, 2),
        crop=(0, 0),
        starts=(0, 1, 2, 3),
        steps=(4,) * 4,
    )
    text = assembly(kernel, isa)
    assert "punpckhbw" in text
    assert "pinsrb" not in text


def test_codes_with_gaps_need_to_know_what_they_stand_for() -> None:
    planes = [tensor(1, 1, 3, width, dtype="uint8") for width in (4, 8)]
    with pytest.raises(ValueError, match="fill of uint8 with None"):
        Interleave(
            source=planes[0],
            out=planes[1],
            factors=(1, 2),
            crop=(0, 0),
            starts=(0, NOWHERE),
            steps=(1, 1),
        )


@pytest.mark.parametrize("isa", [AVX512, GENERIC], ids=["avx512", "generic"])
def test_columns_are_shuffled_in_registers(isa: VectorIsa) -> None:
    kernel = Interleave(
        source=tensor(1, 64, 32, 32),
        out=tensor(1, 16, 64, 64),
        factors=(2, 2),
        crop=(0, 0),
        starts=(0, 1, 2, 3),
        steps=(4,) * 4,
    )
    text = assembly(kernel, isa)
    assert (
        ("vpermt2ps" in text or "vpermi2ps" in text or "vunpckhps" in text)
        if isa is AVX512
        else "unpckhps" in text
    )
    assert "insertps" not in text
