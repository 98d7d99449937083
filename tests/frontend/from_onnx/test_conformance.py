"""ONNX's own conformance cases: compiled, each gives what ONNX says, or it is refused, in words, as
refused.txt has it."""

import fnmatch
import functools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from subpc.compiler.compile_model import compile
from subpc.errors import CompileError, SubpcError
from tests.frontend.from_onnx.cases import Case, cases

pytestmark = pytest.mark.slow

LIST = Path(__file__).with_name("refused.txt")
INPUT_TYPE = "is a numpy array of"
# Of the value, and of the largest value in the result: ONNX's own files have some results with four
# digits.
RELATIVE = {"float32": 1e-3, "float64": 1e-3}
OF_RANGE = {"float32": 1e-5, "float64": 1e-7}


@functools.lru_cache(maxsize=1)
def refusals() -> dict[str, str]:
    """Case -> the words of its refusal. A line of the file is `words | cases`, where cases are
    names or patterns of names."""
    found: dict[str, str] = {}
    lines = [line for line in LIST.read_text().splitlines() if line and not line.startswith("#")]
    for line in lines:
        words, _, patterns = line.partition(" | ")
        for pattern in patterns.split():
            names = fnmatch.filter(cases(), pattern)
            assert names, f"{LIST.name}: there is no case {pattern}"
            doubled = [name for name in names if name in found]
            assert not doubled, f"{LIST.name}: more than one line has {doubled[:5]}"
            found |= dict.fromkeys(names, words)
    return found


def outputs_of(case: Case, bound: tuple[str, ...], path: Path) -> list[np.ndarray]:
    """What the compiled model gives; SubpcError where it is refused."""
    model, inputs = case.bound(bound)
    onnx.save(model, path)
    given: dict[str, Any] = {"example_inputs": inputs} if case.is_open() and inputs else {}
    results = compile(path, **given)(*inputs)
    return list(results) if isinstance(results, tuple) else [results]


def check(got: list[np.ndarray], expected: tuple[Any, ...]) -> None:
    assert len(got) == len(expected)
    for result, right in zip(got, expected, strict=True):
        assert (result.shape, result.dtype) == (right.shape, right.dtype)
        if right.dtype.kind != "f":
            np.testing.assert_array_equal(result, right)
            continue
        finite = np.abs(right[np.isfinite(right)])
        margin = OF_RANGE[str(right.dtype)] * float(finite.max(initial=0))
        np.testing.assert_allclose(result, right, rtol=RELATIVE[str(right.dtype)], atol=margin)


def attempt(case: Case, bound: tuple[str, ...], path: Path) -> list[np.ndarray] | SubpcError:
    try:
        return outputs_of(case, bound, path)
    except SubpcError as error:
        return error


@pytest.mark.parametrize("name", sorted(cases()))
def test_right_or_refused_in_words(name: str, tmp_path: Path) -> None:
    case, words = cases()[name], refusals().get(name)
    messages = []
    for bound in case.bindings():
        got = attempt(case, bound, tmp_path / "case.onnx")
        if not isinstance(got, SubpcError):
            check(got, case.outputs)
            assert words is None, f"{name} passes: take it off {LIST.name}"
            return
        messages.append(str(got))
        assert not isinstance(got, CompileError), got
        assert len(messages[-1].splitlines()) <= 2
    assert words is not None, f"refused: {messages[-1]}"
    # Where a case's own inputs are of a type that cannot be given, that is said before anything
    # else.
    assert any(word in message for message in messages for word in (words, INPUT_TYPE)), (
        f"refused in other words: {messages[-1]}"
    )
