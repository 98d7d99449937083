"""Folded scales change nothing but the number of multiplications."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from subpc.passes.fold_scales import Pass, fold_scales
from subpc.schedules.activation import Activation
from subpc.schedules.elementwise_program import Constant, Word
from subpc.schedules.quantization import Quantization

A, B, Y = (Quantization(scale=s, zero_point=z) for s, z in ((0.02, 121), (0.05, 3), (0.07, 17)))
RELU, SIX = Activation(kind="relu"), Activation(kind="relu6")
BINARY: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "max": np.maximum,
    "min": np.minimum,
}
ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
}


def value(given: Pass, operands: list[np.ndarray]) -> np.ndarray:
    """What a pass gives before it is rounded, in units of a code, float64."""
    stack: list[np.ndarray] = []
    for word in given.program:
        if isinstance(word, Activation):
            stack.append(ACTIVATIONS[word.kind](stack.pop()))
        elif isinstance(word, str):
            right, left = stack.pop(), stack.pop()
            stack.append(BINARY[word](left, right))
        elif isinstance(word, Constant):
            stack.append(np.full(1, word.value))
        else:
            codes = given.quantizations[word]
            known = given.constants.get(word, operands[word])
            stack.append(codes.values(known) if codes else known.astype("float64"))
    assert given.quantization is not None
    return stack[0] / given.quantization.scale + given.quantization.zero_point


# program, what its operands are codes of (None: floats), which of these are constants, whether the
# scale of the result disappears, and whether bytes are read as they are
CASES: dict[str, tuple[tuple[Word, ...], tuple[Quantization | None, ...], set[int], bool, bool]] = {
    "requantize": ((0,), (A,), set(), True, False),
    "quantize": ((0,), (None,), set(), False, False),
    "sum": ((0, 1, "add", RELU), (A, B), set(), True, False),
    "sum with floats": ((0, 1, "add"), (A, None), set(), False, False),
    "product": ((0, 1, "mul"), (A, B), set(), True, False),
    "product with floats": ((0, 1, "mul"), (None, B), set(), True, False),
    "square": ((0, 0, "mul"), (A,), set(), False, False),
    "product and its factor": ((0, 1, "mul", 1, "add"), (A, B), set(), False, False),
    "batch norm": ((0, 1, "mul", 2, "add", RELU), (A, None, None), {1, 2}, True, True),
    "factor first": ((1, 0, "mul", 2, "add"), (A, None, None), {1, 2}, True, True),
    "batch norm and limit": ((0, 1, "mul", 2, "add", SIX), (A, None, None), {1, 2}, False, True),
    "computed factor": ((0, 1, "mul", 2, "add"), (A, None, None), {2}, True, False),
    "constant added": ((0, Constant(1.5), "add"), (A,), set(), False, False),
    "larger of two": ((0, Constant(0.0), "max", 1, "max"), (A, B), set(), True, False),
    "quotient": ((0, 1, "div"), (A, None), set(), True, False),
}


@pytest.mark.parametrize("name", CASES)
def test_the_same_values(name: str) -> None:
    program, quantizations, known, scale_gone, bytes_as_they_are = CASES[name]
    rng = np.random.default_rng(0)
    operands = [
        rng.integers(0, 256, 50).astype("uint8") if q else rng.uniform(0.5, 2, 50).astype("float32")
        for q in quantizations
    ]
    given = Pass(
        program=program,
        quantizations=quantizations,
        quantization=Y,
        constants={i: operands[i] for i in known},
    )
    folded = fold_scales(given)
    np.testing.assert_allclose(value(folded, operands), value(given, operands), rtol=2e-6)
    assert folded.quantization is not None
    assert (folded.quantization.scale == 1.0) == scale_gone
    whole = Quantization(scale=1.0, zero_point=0)
    assert (folded.quantizations[0] == whole) == bytes_as_they_are


def test_floats_have_no_scale_to_fold() -> None:
    given = Pass(program=(0,), quantizations=(A,), quantization=Y, constants={})
    floats = replace(given, quantization=None)
    assert fold_scales(floats) == floats


def test_scales_that_float32_cannot_divide_stay_as_they_are() -> None:
    tiny, huge = Quantization(scale=1e-38, zero_point=0), Quantization(scale=1e38, zero_point=0)
    for codes, result in ((tiny, huge), (huge, tiny)):
        given = Pass(program=(0,), quantizations=(codes,), quantization=result, constants={})
        assert fold_scales(given) == given
        known = Pass(
            program=(0, 1, "mul"),
            quantizations=(codes, None),
            quantization=result,
            constants={1: np.array([codes.scale], "float32")},
        )
        assert fold_scales(known) == known
