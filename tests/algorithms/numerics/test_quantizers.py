"""Quantizers against their formulas written out, and packing there and back."""

import pytest
import torch

from subpc.algorithms.numerics.quantizers import (
    Quantized,
    check_bits,
    codes_of,
    pack_codes,
    quantize_ternary,
    quantize_uniform,
    rounding,
    unpack_codes,
)
from subpc.errors import ConfigError


def weight() -> torch.Tensor:
    return torch.randn(6, 5, 3, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8])
def test_uniform_is_the_papers_formula_with_the_scale_restored(bits: int) -> None:
    w, top = weight().double(), weight().double().abs().max()
    levels = 2**bits - 1
    expected = top * (2 / levels * (levels * (w / (2 * top) + 0.5)).round() - 1)
    torch.testing.assert_close(
        quantize_uniform(weight(), bits).dequantize().double(), expected, rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("bits", [3, 6])
def test_uniform_per_channel_is_each_filter_by_itself(bits: int) -> None:
    whole = quantize_uniform(weight(), bits, per_channel=True).dequantize()
    for filters, alone in zip(whole, weight(), strict=True):
        torch.testing.assert_close(filters, quantize_uniform(alone[None], bits).dequantize()[0])


def test_ternary_keeps_what_is_above_the_threshold_at_its_mean_size() -> None:
    w = weight()
    kept = w.abs() > 0.7 * w.abs().mean()
    expected = torch.where(kept, w.sign() * w.abs()[kept].mean(), torch.zeros_like(w))
    torch.testing.assert_close(quantize_ternary(w).dequantize(), expected)


@pytest.mark.parametrize("bits", [2, 5, 8])
@pytest.mark.parametrize("has_zero", [True, False])
def test_the_nearest_codes_are_those_of_the_levels_written_out(bits: int, has_zero: bool) -> None:
    rows, scale = (
        weight().double().flatten(1),
        torch.linspace(0.5, 1.5, 6, dtype=torch.float64)[:, None],
    )
    count = 2**bits - 1 if has_zero else 2**bits
    levels = torch.linspace(-1, 1, count, dtype=torch.float64)
    expected = (rows[..., None] / scale[..., None] - levels).abs().argmin(-1)
    codes = codes_of(rows, scale, bits, has_zero=has_zero)
    assert torch.equal(codes.long(), expected)
    stored = Quantized(codes=codes, scale=scale[:, 0].float(), bits=bits, has_zero=has_zero)
    values = scale * levels[expected]
    torch.testing.assert_close(stored.dequantize().double(), values, rtol=1e-6, atol=1e-7)
    nearest = rounding(scale, bits, has_zero=has_zero)(rows.clone())
    torch.testing.assert_close(nearest, values, rtol=1e-12, atol=1e-12)
    assert bool((stored.dequantize()[expected == count // 2] == 0).all()) or not has_zero


def test_a_filter_of_zeros_stays_zero() -> None:
    zeros = torch.zeros(2, 3, 1, 1)
    assert not quantize_ternary(zeros, per_channel=True).dequantize().any()
    assert not quantize_uniform(zeros, 4, per_channel=True).dequantize().any()


@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8])
@pytest.mark.parametrize("count", [1, 7, 8, 1001, (1 << 17) + 1])
def test_packing_there_and_back(bits: int, count: int) -> None:
    codes = torch.randint(
        0, 2**bits, (count,), dtype=torch.uint8, generator=torch.Generator().manual_seed(count)
    )
    packed = pack_codes(codes, bits)
    assert packed.numel() == -(-count * bits // 8)
    assert torch.equal(unpack_codes(packed, bits, count), codes)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8])
def test_packed_codes_are_one_stream_with_the_lowest_bit_first(bits: int) -> None:
    codes = [i % (1 << bits) for i in range(0, 500, 7)]
    stream = sum(code << (bits * place) for place, code in enumerate(codes))
    packed = pack_codes(torch.tensor(codes, dtype=torch.uint8), bits)
    assert int.from_bytes(bytes(packed.tolist()), "little") == stream


@pytest.mark.parametrize("bits", [0, 1, 9, 2.5, True])
def test_other_widths_are_refused(bits: object) -> None:
    with pytest.raises(ConfigError, match="accepted: whole numbers from 2 to 8"):
        check_bits(bits)  # type: ignore[arg-type]
