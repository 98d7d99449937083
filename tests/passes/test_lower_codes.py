"""Operators on codes, from Relax to kernels that run, against float64."""

from typing import Any

import numpy as np
import pytest
from tvm import relax

from subpc.passes import ops
from subpc.schedules.quantization import Quantization
from tests.passes.small_graphs import Emit, families, lowered, run

A, B = Quantization(scale=0.02, zero_point=120), Quantization(scale=0.03, zero_point=0)


def attribute(quantization: Quantization | None) -> tuple[float, ...]:
    return (quantization.scale, quantization.zero_point) if quantization else ()


def quantize(x: Any, quantization: Quantization, name: str = "quantize") -> relax.Call:
    return convert(x, None, quantization, name)


def dequantize(x: Any, quantization: Quantization, name: str = "dequantize") -> relax.Call:
    return convert(x, quantization, None, name)


def convert(
    x: Any, source: Quantization | None, result: Quantization | None, name: str
) -> relax.Call:
    """x, codes of `source` or floats, as codes of `result` or floats."""
    written = {"quantization": attribute(result)} if result else {}
    return ops.make(
        ops.ELEMENTWISE,
        [x],
        program=["arg 0"],
        kinds=["tensor"],
        quantizations=[attribute(source)],
        dtype="uint8" if result else "float32",
        out_shape=list(x.ty.shape),
        name=name,
        **written,
    )


def floats(*shape: int) -> np.ndarray:
    return (np.random.default_rng(0).standard_normal(shape) * 2).astype("float32")


def through(network: Any, *inputs: np.ndarray) -> tuple[list[str], np.ndarray]:
    """(the kernels called, the output)."""
    program, weights = lowered(network, inputs)
    (output,) = run(program, weights, inputs)
    return families(program), output


def test_codes_and_back_are_two_passes() -> None:
    x = floats(2, 3, 7, 9)

    def network(emit: Emit, x: relax.Var) -> relax.Expr:
        return dequantize(emit(quantize(x, A)), A)

    called, got = through(network, x)
    assert called == ["elementwise", "elementwise"]
    np.testing.assert_allclose(got, A.values(A.codes(x)), rtol=1e-6)


@pytest.mark.parametrize("shape", [(2, 5, 6, 7), (3, 40), (2, 3, 5)], ids=str)
def test_a_sum_of_two_scales(shape: tuple[int, ...]) -> None:
    x, y = floats(2, *shape)

    def network(emit: Emit, x: relax.Var, y: relax.Var) -> relax.Expr:
        operands = [emit(quantize(x, A)), emit(quantize(y, B))]
        total = ops.make(
            ops.ELEMENTWISE,
            operands,
            program=["arg 0", "arg 1", "add", "act relu"],
            kinds=["tensor", "tensor"],
            quantizations=[attribute(A), attribute(B)],
            quantization=attribute(B),
            out_shape=list(shape),
            name="sum",
        )
        return dequantize(emit(total), B)

    called, got = through(network, x, y)
    assert called == ["elementwise"] * 4
    real = np.maximum(A.values(A.codes(x)) + B.values(B.codes(y)), 0)
    np.testing.assert_allclose(got, B.values(B.codes(real)), atol=B.scale * 1.001)
    assert np.mean(np.abs(got - B.values(B.codes(real))) > B.scale / 2) < 0.01
