"""schedules/int8_linear.py against integer sums and the same float32 steps in NumPy: bit for
bit."""

import numpy as np
import pytest

from subpc.schedules.activation import NONE, Activation
from subpc.schedules.int8_linear import Int8Linear
from subpc.schedules.isa import AVX2, AVX2_VNNI, AVX512, AVX512_VNNI, VectorIsa
from subpc.schedules.layout import round_up
from subpc.schedules.quantization import Quantization
from subpc.schedules.requantize import Requantize, levels_of
from tests.schedules.harness import DOT_ISAS, assembly, cpu_supports, run_everywhere
from tests.schedules.requantized import requantized

RELU, LEAKY = Activation(kind="relu"), Activation(kind="leaky_relu", slope=0.1)
SHAPES = [(1, 1), (3, 17), (7, 10), (130, 32), (33, 64), (515, 1000)]


def check(
    shape: tuple[int, int],
    rows: int,
    isa: VectorIsa,
    *,
    activation: Activation = RELU,
    residual: str = "",
    codes: bool = True,
    extreme: bool = False,
) -> None:
    if not cpu_supports(isa):
        pytest.skip("this CPU lacks the instructions")
    (inputs, outputs), rng, zero = shape, np.random.default_rng(3), 117
    x = rng.integers(0, 256, (rows, inputs)).astype("uint8")
    w = rng.integers(-128, 128, (outputs, inputs)).astype("int8")
    if extreme:
        x, w, zero = np.full_like(x, 255), np.full_like(w, -128), 0
    sums = (x.astype("int64") - zero) @ w.astype("int64").T
    reach = np.abs(sums).max() + 1
    scale = Quantization(scale=0.25, zero_point=9) if residual == "uint8" else None
    levels = levels_of(
        multiplier=rng.uniform(20, 60, outputs) / reach,
        bias=rng.uniform(-5, 60, outputs),
        largest_sum=255.0 * 128 * inputs,
        activation=activation,
        residual=scale,
        result=Quantization(scale=0.5, zero_point=31) if codes else None,
    )
    epilogue = Requantize(
        residual=bool(residual),
        activation=activation,
        codes=codes,
        residual_codes=residual == "uint8",
        limited=levels.limited,
        shifted=levels.shifted,
    )
    kernel = Int8Linear(rows=rows, inputs=inputs, outputs=outputs, epilogue=epilogue)
    room = (0, round_up(outputs, 16) - outputs)
    added = rng.integers(0, 256, (rows, outputs)).astype(residual or "uint8")
    values = {
        "x": x,
        "w": kernel.pack_weights(w),
        "start": np.pad(-zero * w.astype("int64").sum(1), room).astype("int32"),
        "multiplier": np.pad(levels.multiplier, room),
        "bias": np.pad(levels.bias, room),
        "levels": levels.levels,
        "residual": added,
        "y": np.zeros(rows * outputs, "uint8" if codes else "float32"),
    }
    got = run_everywhere(kernel, [values[name] for name in kernel.operands], isa)
    expected = requantized(sums, levels, epilogue, added if residual else None)
    np.testing.assert_array_equal(got.reshape(rows, outputs), expected)


@pytest.mark.pairs
@pytest.mark.parametrize("isa", DOT_ISAS.values(), ids=DOT_ISAS)
@pytest.mark.parametrize("rows", [1, 3, 19])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_codes_of_codes(shape: tuple[int, int], rows: int, isa: VectorIsa) -> None:
    check(shape, rows, isa)


@pytest.mark.pairs
@pytest.mark.parametrize("isa", DOT_ISAS.values(), ids=DOT_ISAS)
@pytest.mark.parametrize("codes", [True, False], ids=["codes", "floats"])
@pytest.mark.parametrize("residual", ["", "uint8", "float32"])
@pytest.mark.parametrize("activation", [NONE, RELU, LEAKY], ids=lambda a: a.kind)
def test_what_follows_the_sum(
    activation: Activation, residual: str, codes: bool, isa: VectorIsa
) -> None:
    check((19, 23), 3, isa, activation=activation, residual=residual, codes=codes)


@pytest.mark.parametrize("isa", DOT_ISAS.values(), ids=DOT_ISAS)
def test_the_largest_products_do_not_saturate(isa: VectorIsa) -> None:
    check((130, 17), 2, isa, activation=NONE, codes=False, extreme=True)


@pytest.mark.parametrize(
    ("isa", "instruction"),
    [(AVX512_VNNI, "vpdpbusd"), (AVX2_VNNI, "vpdpbusd"), (AVX512, "vpmaddwd"), (AVX2, "vpmaddwd")],
    ids=lambda value: getattr(value, "name", value),
)
def test_weights_are_streamed(isa: VectorIsa, instruction: str) -> None:
    """Whole lines of them, straight into the multiplication, asked for before."""
    kernel = Int8Linear(rows=1, inputs=2048, outputs=1024, epilogue=Requantize(codes=True))
    text = assembly(kernel, isa)
    assert text.count(instruction) >= 8
    assert "prefetcht" in text
    assert "vpinsrb" not in text
    assert "Workspace" not in text
