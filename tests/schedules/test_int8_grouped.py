"""schedules/int8_grouped.py against integer sums and the same float32 steps in NumPy: bit for
bit."""

from dataclasses import dataclass

import numpy as np
import pytest

from subpc.schedules.activation import NONE, Activation
from subpc.schedules.int8_grouped import Int8Grouped, Int8GroupedTile
from subpc.schedules.isa import AVX512_VNNI, VectorIsa
from subpc.schedules.layout import TensorLayout
from subpc.schedules.quantization import Quantization
from subpc.schedules.requantize import Requantize, levels_of
from tests.schedules.harness import (
    DOT_ISAS,
    assembly,
    cpu_supports,
    into,
    out_of,
    pixel_index,
    run_everywhere,
    tensor,
)
from tests.schedules.requantized import requantized

RELU, LEAKY = Activation(kind="relu"), Activation(kind="leaky_relu", slope=0.1)
RESULT = Quantization(scale=0.5, zero_point=31)
# What no kernel writes.
BORDER = 7


@dataclass(frozen=True, kw_only=True)
class Case:
    """channels: (input, output); the other fields are those of the kernel."""

    channels: tuple[int, int] = (3, 3)
    groups: int = 3
    size: tuple[int, int] = (9, 11)
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    batch: int = 1
    halo: int = 1
    rows: int = 4
    zero_point: int = 117
    activation: Activation = RELU
    residual: str = ""
    codes: bool = True

    def out_size(self) -> tuple[int, int]:
        height, width = (
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, k, s, p, d in zip(
                self.size, self.kernel, self.stride, self.padding, self.dilation, strict=True
            )
        )
        return height, width


def sums_of(case: Case, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """The integer convolution of x - zero point, whose padding is the zero point."""
    edges = ((0, 0), (0, 0), *((p, p) for p in case.padding))
    padded = np.pad(x.astype("int64") - case.zero_point, edges)
    (height, width), filters = case.out_size(), len(w) // case.groups
    total = np.zeros((case.batch, len(w), height, width), "int64")
    for o, c, ky, kx in np.ndindex(*w.shape):
        channel = o // filters * w.shape[1] + c
        y, z = ky * case.dilation[0], kx * case.dilation[1]
        part = padded[:, channel, y : y + (height - 1) * case.stride[0] + 1 : case.stride[0]]
        part = part[:, :, z : z + (width - 1) * case.stride[1] + 1 : case.stride[1]]
        total[:, o] += int(w[o, c, ky, kx]) * part
    return total


def check(case: Case, isa: VectorIsa = AVX512_VNNI, *, largest: bool = False) -> None:
    if not cpu_supports(isa):
        pytest.skip("this CPU lacks the instructions")
    rng, (c_in, c_out) = np.random.default_rng(5), case.channels
    source = tensor(case.batch, c_in, *case.size, case.halo, "uint8")
    dtype = "uint8" if case.codes else "float32"
    out = tensor(case.batch, c_out, *case.out_size(), case.halo, dtype)
    x = rng.integers(0, 256, source.shape).astype("uint8")
    w = rng.integers(-128, 128, (c_out, c_in // case.groups, *case.kernel)).astype("int8")
    if largest:
        x, w = np.full_like(x, 255), np.full_like(w, -128)
    sums = sums_of(case, x, w)
    levels = levels_of(
        multiplier=rng.uniform(20, 60, c_out) / (np.abs(sums).max() + 1),
        bias=rng.uniform(-5, 60, c_out),
        largest_sum=255.0 * 128 * w[0].size,
        activation=case.activation,
        residual=Quantization(scale=0.25, zero_point=9) if case.residual == "uint8" else None,
        result=RESULT if case.codes else None,
    )
    residual_at = tensor(case.batch, c_out, *case.out_size(), case.halo, case.residual or dtype)
    residual = rng.integers(0, 256, out.shape).astype(residual_at.dtype)
    kernel = Int8Grouped(
        source=source,
        out=out,
        groups=case.groups,
        kernel=case.kernel,
        stride=case.stride,
        padding=case.padding,
        dilation=case.dilation,
        wide=isa.dot == "madd",
        residual=residual_at if case.residual else None,
        epilogue=Requantize(
            residual=bool(case.residual),
            activation=case.activation,
            codes=case.codes,
            residual_codes=case.residual == "uint8",
            limited=levels.limited,
            shifted=levels.shifted,
        ),
        tile=Int8GroupedTile(rows=case.rows),
    )
    pixels = np.ones((1, 1, *case.out_size()), dtype)
    values = {
        "x": into(source, x, case.zero_point),
        "w": kernel.pack_weights(w),
        "start": (-case.zero_point * w.reshape(c_out, -1).astype("int64").sum(1)).astype("int32"),
        "multiplier": levels.multiplier,
        "bias": levels.bias,
        "levels": levels.levels,
        "residual": into(residual_at, residual),
        "mask": into(tensor(1, 1, *case.out_size(), case.halo, dtype), pixels)
        * np.array(255 if case.codes else 1, dtype),
        "y": np.full(out.elements, BORDER, dtype),
    }
    got = run_everywhere(kernel, [values[name] for name in kernel.operands], isa)
    expected = requantized(sums, levels, kernel.epilogue, residual if case.residual else None)
    np.testing.assert_array_equal(out_of(out, got), expected)
    check_border(out, got, masked=kernel.masked)


def check_border(out: TensorLayout, flat: np.ndarray, *, masked: bool) -> None:
    """Columns between rows are zeros where the kernel goes over them; the rest is as it was."""
    frame = out.frame
    between = np.zeros(frame.plane, bool)
    between[frame.first : frame.first + frame.pixels] = masked
    expected = np.where(between, 0, BORDER)
    expected[pixel_index(frame)] = 0
    planes = flat.reshape(-1, frame.plane).copy()
    planes[:, pixel_index(frame)] = 0
    np.testing.assert_array_equal(planes, np.broadcast_to(expected, planes.shape))


WINDOWS = [
    Case(),
    Case(size=(1, 1)),
    Case(size=(7, 7), batch=2),
    Case(size=(30, 70), channels=(2, 2), groups=2),
    Case(kernel=(5, 5), padding=(2, 2), halo=2, size=(14, 14)),
    Case(kernel=(1, 7), padding=(0, 3), halo=3),
    Case(kernel=(3, 3), padding=(0, 0), size=(12, 70)),
    Case(stride=(2, 2), size=(15, 16)),
    Case(stride=(2, 2), size=(14, 150), batch=2, rows=3),
    Case(stride=(2, 1), size=(15, 16)),
    Case(stride=(1, 2), size=(15, 16), rows=2),
    Case(stride=(3, 3), size=(15, 40)),
    Case(stride=(4, 4), kernel=(4, 4), padding=(0, 0), size=(16, 80)),
    Case(dilation=(2, 3), padding=(2, 3), halo=3),
    Case(dilation=(2, 2), padding=(2, 2), halo=2, stride=(2, 2), kernel=(5, 5), size=(17, 19)),
]


@pytest.mark.parametrize("isa", DOT_ISAS.values(), ids=DOT_ISAS)
@pytest.mark.parametrize("case", WINDOWS, ids=str)
def test_depthwise(case: Case, isa: VectorIsa) -> None:
    check(case, isa)


@pytest.mark.parametrize("isa", DOT_ISAS.values(), ids=DOT_ISAS)
@pytest.mark.parametrize("channels", [(6, 6), (6, 3), (4, 8), (3, 6)], ids=str)
def test_few_filters_a_group(channels: tuple[int, int], isa: VectorIsa) -> None:
    groups = {6: 3, 4: 2, 3: 3}[channels[0]]
    check(Case(channels=channels, groups=groups, batch=2), isa)


@pytest.mark.pairs
@pytest.mark.parametrize("isa", DOT_ISAS.values(), ids=DOT_ISAS)
@pytest.mark.parametrize("codes", [True, False], ids=["codes", "floats"])
@pytest.mark.parametrize("residual", ["", "uint8", "float32"])
@pytest.mark.parametrize("stride", [(1, 1), (2, 2)], ids=str)
def test_what_follows_the_sum(
    stride: tuple[int, int], residual: str, codes: bool, isa: VectorIsa
) -> None:
    for activation in (NONE, LEAKY):
        check(Case(stride=stride, residual=residual, codes=codes, activation=activation), isa)


@pytest.mark.parametrize("isa", DOT_ISAS.values(), ids=DOT_ISAS)
def test_the_largest_products_do_not_saturate(isa: VectorIsa) -> None:
    check(Case(zero_point=0, codes=False, activation=NONE), isa, largest=True)


def test_taps_outside_the_halo_are_refused() -> None:
    with pytest.raises(ValueError, match="reach 2 pixels outside"):
        check(Case(kernel=(5, 5), padding=(2, 2), halo=1))


def test_pixels_go_from_memory_into_the_multiplication() -> None:
    """Three neighbouring taps: one instruction a lane, and no shuffle but the one before a
    store."""
    layout = tensor(1, 96, 56, 56, 1, "uint8")
    kernel = Int8Grouped(
        source=layout,
        out=layout,
        groups=96,
        kernel=(3, 3),
        padding=(1, 1),
        wide=False,
        epilogue=Requantize(codes=True),
    )
    text = assembly(kernel, AVX512_VNNI)
    functions = text.count("vpshufb") or 1
    assert text.count("vpdpbusd") <= 12 * functions
    assert "vpermb" not in text
    assert "vpinsrb" not in text
