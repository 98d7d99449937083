"""Elementwise programs whose operands or results are codes, against float64."""

from collections.abc import Callable

import numpy as np
import pytest

from subpc.schedules.activation import Activation
from subpc.schedules.elementwise import Elementwise
from subpc.schedules.elementwise_program import Constant
from subpc.schedules.isa import AVX2, AVX512, GENERIC, VectorIsa
from subpc.schedules.layout import TensorLayout
from subpc.schedules.quantization import Quantization
from tests.schedules.harness import (
    ISAS,
    assembly,
    between_rows,
    check_codes,
    check_tensor,
    cpu_supports,
    into,
    out_of,
    run_everywhere,
    tensor,
)

SHAPES = [(1, 1, 1, 1), (3, 17, 7, 7), (2, 40, 1, 1), (1, 2, 5, 150)]
# Zero points at both ends, and one between.
FROM_ZERO, SIGNED, TO_ZERO = (
    Quantization(scale=s, zero_point=z) for s, z in ((0.013, 0), (0.021, 131), (0.5, 255))
)
# What no byte of an operand or result holds by itself.
BORDER = 93

Codes = Quantization | None
Array = np.ndarray
# kinds, what each operand is, the program, its meaning, what the result is
PROGRAMS: list[
    tuple[tuple[str, ...], tuple[Codes, ...], tuple[object, ...], Callable[..., Array], Codes]
] = [
    (("tensor",), (None,), (0,), lambda a: a, SIGNED),
    (("tensor",), (SIGNED,), (0,), lambda a: a, None),
    (("tensor",), (TO_ZERO,), (0,), lambda a: a, FROM_ZERO),
    (
        ("tensor", "tensor"),
        (FROM_ZERO, SIGNED),
        (0, 1, "add", Activation(kind="relu")),
        lambda a, b: np.maximum(a + b, 0),
        FROM_ZERO,
    ),
    (
        ("tensor", "tensor"),
        (FROM_ZERO, None),
        (0, 1, "add", Activation(kind="relu")),
        lambda a, b: np.maximum(a + b, 0),
        FROM_ZERO,
    ),
    (("tensor", "image_channel"), (SIGNED, None), (0, 1, "mul"), lambda a, b: a * b, SIGNED),
    (("tensor", "image_channel"), (SIGNED, TO_ZERO), (0, 1, "mul"), lambda a, b: a * b, SIGNED),
    (
        ("channel", "tensor"),
        (None, FROM_ZERO),
        (1, 0, "mul", Constant(0.5), "add", Activation(kind="sigmoid")),
        lambda a, b: 1 / (1 + np.exp(-(b * a + 0.5))),
        Quantization(scale=1 / 255, zero_point=0),
    ),
]


def operand(
    kind: str, codes: Codes, layout: TensorLayout, rng: np.random.Generator
) -> tuple[Array, Array]:
    """(flat, as the kernel reads it; what it stands for, float64)."""
    shape = {
        "tensor": layout.shape,
        "channel": (1, layout.channels, 1, 1),
        "image_channel": (*layout.shape[:2], 1, 1),
    }[kind]
    if codes is None:
        read = (rng.standard_normal(shape) * 2).astype("float32")
        real = read.astype("float64")
    else:
        read = rng.integers(0, 256, shape).astype("uint8")
        real = codes.values(read)
    return into(layout, read, BORDER) if kind == "tensor" else read.ravel(), real


def check(
    index: int, shape: tuple[int, ...], halos: tuple[int | None, ...], isa: VectorIsa
) -> None:
    kinds, codes, program, meaning, result = PROGRAMS[index]
    rng = np.random.default_rng(index)
    out = tensor(*shape, halos[-1], "uint8" if result else "float32")  # type: ignore[misc]
    layouts = [
        tensor(*shape, halo, "uint8" if q else "float32")  # type: ignore[misc]
        for halo, q in zip(halos, codes, strict=False)
    ]
    read = [operand(k, q, t, rng) for k, q, t in zip(kinds, codes, layouts, strict=True)]
    kernel = Elementwise(
        layout=out,
        inputs=kinds,
        program=program,  # type: ignore[arg-type]
        frames=tuple(t.frame for t in layouts),
        quantizations=codes,
        quantization=result,
    )
    real = np.broadcast_to(meaning(*(value for _, value in read)), shape)
    empty = np.full(out.elements, 0 if kernel.keeps_zero else BORDER, out.dtype)
    flat = [f for f, _ in read]
    if kernel.keeps_zero:  # borders hold zeros, and still do afterwards
        flat = [
            into(t, out_of(t, f)) if k == "tensor" else f
            for k, t, f in zip(kinds, layouts, flat, strict=True)
        ]
    mask = [255 * into(tensor(1, 1, *shape[2:], halos[-1], "uint8"), np.ones((1, 1, *shape[2:])))]
    got = run_everywhere(kernel, [*flat, *(mask if kernel.masked else []), empty], isa)
    if kernel.masked:  # columns between rows have become zeros
        columns = between_rows(out.frame)
        planes = got.reshape(-1, out.frame.plane)
        assert not planes[:, columns].any()
        planes[:, columns] = BORDER
    if result is None:
        check_tensor(out, into(out, out_of(out, got)), real, 1e-6)
    else:
        check_codes(out, got, real, result, int(empty[0]))


HALOS = [(None,) * 3, (0, 0, 0), (2, 2, 2), (None, 1, 2)]


@pytest.mark.parametrize(
    ("halos", "isa"),
    [*((halos, AVX512) for halos in HALOS), *((HALOS[-1], isa) for isa in (AVX2, GENERIC))],
    ids=lambda value: value.name if isinstance(value, VectorIsa) else str(value),
)
@pytest.mark.parametrize("index", range(len(PROGRAMS)))
def test_program(index: int, halos: tuple[int | None, ...], isa: VectorIsa) -> None:
    if not cpu_supports(isa):
        pytest.skip("this CPU lacks the instructions")
    for shape in SHAPES:
        check(index, shape, halos, isa)


def quantize(values: np.ndarray, quantization: Quantization, isa: VectorIsa = AVX512) -> np.ndarray:
    """A row of float32 as codes."""
    row = tensor(1, 1, 1, values.size, dtype="uint8")
    kernel = Elementwise(layout=row, inputs=("tensor",), program=(0,), quantization=quantization)
    return run_everywhere(kernel, [values, np.zeros(values.size, "uint8")], isa)


@pytest.mark.parametrize("isa", ISAS.values(), ids=ISAS)
def test_halves_go_to_the_even_step_before_the_zero_point_is_added(isa: VectorIsa) -> None:
    """Halves, and the floats beside them, are those of the float32 quotient, as ONNX has it."""
    for scale, zero in [(1.0, 1), (0.0235, 1), (0.0371, 128)]:
        halves = (np.arange(-zero - 3, 258 - zero, 0.5) * scale).astype("float32")
        values = np.concatenate([halves + k * np.spacing(halves) for k in range(-2, 3)])
        steps = np.rint(values / np.float32(scale))
        got = quantize(values, Quantization(scale=scale, zero_point=zero), isa)
        np.testing.assert_array_equal(got, np.clip(steps + zero, 0, 255))


@pytest.mark.parametrize("isa", ISAS.values(), ids=ISAS)
def test_values_far_outside_and_no_numbers(isa: VectorIsa) -> None:
    values = np.array([1e38, -1e38, np.inf, -np.inf, np.nan, 3e9, -3e9] * 5, "float32")
    np.testing.assert_array_equal(quantize(values, SIGNED, isa), SIGNED.codes(values))


def test_every_code_survives_the_way_to_float_and_back() -> None:
    codes = np.arange(256, dtype="uint8")
    for quantization in (FROM_ZERO, SIGNED, TO_ZERO):
        values = quantization.values(codes).astype("float32")
        np.testing.assert_array_equal(quantize(values, quantization), codes)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"quantization": None}, "uint8 with None"),
        ({"quantizations": (None, None)}, "quantizations for"),
    ],
)
def test_what_does_not_fit_is_refused(fields: dict[str, object], message: str) -> None:
    layout = tensor(1, 1, 4, 4, dtype="uint8")
    options = {"layout": layout, "inputs": ("tensor",), "program": (0,), "quantization": SIGNED}
    with pytest.raises(ValueError, match=message):
        Elementwise(**options | fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("isa", [AVX512, AVX2], ids=lambda isa: isa.name)
def test_codes_are_converted_in_vectors(isa: VectorIsa) -> None:
    layout = tensor(1, 8, 56, 56, 1, "uint8")
    kernel = Elementwise(
        layout=layout,
        inputs=("tensor", "tensor"),
        program=(0, 1, "add"),
        quantizations=(SIGNED, SIGNED),
        quantization=SIGNED,
    )
    text = assembly(kernel, isa)
    assert "vpmovzxbd" in text
    assert "vpinsrb" not in text
    assert "vpackuswb" in text
