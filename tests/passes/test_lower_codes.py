"""Operators on codes, from Relax to kernels that run, against float64."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional
from tvm import relax

from subpc.passes import ops
from subpc.passes.dataflow import shape_of
from subpc.schedules.elementwise import Elementwise
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
        out_shape=list(shape_of(x)),
        name=name,
        **written,
    )


def floats(*shape: int) -> np.ndarray:
    return (np.random.default_rng(0).standard_normal(shape) * 2).astype("float32")


def check_codes(got: np.ndarray, real: np.ndarray, quantization: Quantization) -> None:
    """Values that were rounded to codes, `real` before: one code beside it only near the middle of
    two."""
    exact = np.clip(real / quantization.scale + quantization.zero_point, 0, 255)
    middle = np.abs(exact - np.floor(exact) - 0.5) < 1e-4
    codes = quantization.codes(got).astype("int32")
    assert (np.abs(codes - np.rint(exact)) <= middle).all()


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
    check_codes(got, real, B)


def test_batch_norm_of_codes_reads_bytes_as_they_are() -> None:
    x, (_, factor, offset) = floats(2, 5, 6, 7), weights(5, 1)

    def network(emit: Emit, x: relax.Var) -> relax.Expr:
        operands = [emit(quantize(x, A)), *map(relax.const, map(np.float32, (factor, offset)))]
        norm = ops.make(
            ops.ELEMENTWISE,
            operands,
            program=["arg 0", "arg 1", "mul", "arg 2", "add", "act relu"],
            kinds=["tensor", "channel", "channel"],
            quantizations=[attribute(A), (), ()],
            quantization=attribute(B),
            dtype="uint8",
            out_shape=[2, 5, 6, 7],
            name="norm",
        )
        return dequantize(emit(norm), B)

    program, stored = lowered(network, [x])
    (got,) = run(program, stored, [x])
    shape = (1, 5, 1, 1)
    real = A.values(A.codes(x)) * factor.astype("float32").reshape(shape)
    real = np.maximum(real + offset.astype("float32").reshape(shape), 0)
    check_codes(got, real, B)
    norm = program.calls[1].kernel
    assert isinstance(norm, Elementwise)
    assert norm.quantizations[0] == Quantization(scale=1.0, zero_point=0)


def test_pooling_keeps_codes_or_gives_floats() -> None:
    x = floats(1, 4, 12, 14)

    def network(emit: Emit, x: relax.Var) -> relax.Expr:
        codes = emit(quantize(x, A))
        options = {"strides": [2, 2], "padding": [1, 1, 1, 1], "dilation": [1, 1]}
        pooled = codes
        for kind in ("max", "avg"):
            height, width = (-(-n // 2) for n in shape_of(pooled)[2:])
            pooled = emit(
                ops.make(
                    ops.POOL2D,
                    [pooled],
                    kind=kind,
                    size=[3, 3],
                    count_include_pad=False,
                    x_quantization=attribute(A),
                    out_shape=[1, 4, height, width],
                    name=kind,
                    **options,
                )
            )
        return ops.make(
            ops.GLOBAL_POOL,
            [pooled],
            x_quantization=attribute(A),
            dtype="float32",
            out_shape=[1, 4],
            name="mean",
        )

    called, got = through(network, x)
    assert called == ["elementwise", "max_pool2d", "avg_pool2d", "global_pool"]
    codes = torch.from_numpy(A.codes(x).astype("float64")) - A.zero_point
    largest = functional.max_pool2d(codes, 3, 2, 1)
    means = functional.avg_pool2d(largest, 3, 2, 1, count_include_pad=False).round()
    np.testing.assert_allclose(got, A.scale * means.mean((2, 3)).numpy(), rtol=1e-5)


def test_a_shuffle_of_halves_and_a_view_are_copies_of_bytes() -> None:
    x = floats(2, 6, 5, 7)

    def network(emit: Emit, x: relax.Var) -> relax.Expr:
        codes = emit(quantize(x, A))
        halves = [
            emit(ops.make(ops.CHANNELS, [codes], first=first, out_shape=[2, 3, 5, 7], name="half"))
            for first in (3, 0)
        ]
        swapped = emit(ops.make(ops.CONCAT, halves, out_shape=[2, 6, 5, 7], name="swapped"))
        larger = emit(
            ops.make(
                ops.INTERLEAVE,
                [swapped],
                factors=[2, 2],
                crop=[0, 0],
                starts=[0, 0, 0, 0],
                steps=[1, 1, 1, 1],
                activation="none",
                out_shape=[2, 6, 10, 14],
                name="larger",
            )
        )
        row = emit(ops.make(ops.VIEW, [larger], out_shape=[2, 6 * 10 * 14], name="row"))
        return dequantize(row, A)

    called, got = through(network, x)
    assert called[1:3] == ["channel_copy", "channel_copy"]
    assert set(called[3:-1]) == {"relayout", "interleave"}
    swapped = np.roll(A.values(A.codes(x)), 3, axis=1)
    expected = swapped.repeat(2, axis=2).repeat(2, axis=3).reshape(2, -1)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def weights(*shape: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(codes, scales, bias) of a layer, output channels first."""
    rng = np.random.default_rng(1)
    codes = rng.integers(-127, 128, shape).astype("int8")
    return codes, rng.uniform(0.001, 0.003, shape[0]), rng.standard_normal(shape[0])


def layer(op: str, args: list[relax.Expr], scales: np.ndarray, **attrs: Any) -> relax.Call:
    """A layer on codes of A, with codes of B as its result unless it is float32."""
    written = {} if attrs.get("dtype") == "float32" else {"quantization": attribute(B)}
    return ops.make(
        op,
        args,
        x_quantization=attribute(A),
        weight_scales=[float(scale) for scale in scales],
        residual_quantization=[],
        name="layer",
        **{"activation": "relu", **written, **attrs},
    )


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_fully_connected_layer(dtype: str) -> None:
    x, (codes, scales, bias) = floats(3, 2, 21), weights(19, 21)

    def network(emit: Emit, x: relax.Var) -> relax.Expr:
        args = [emit(quantize(x, A)), relax.const(codes), relax.const(bias.astype("float32"))]
        result = layer(ops.LINEAR, args, scales, transposed=0, out_shape=[3, 2, 19], dtype=dtype)
        return result if dtype == "float32" else dequantize(emit(result), B)

    called, got = through(network, x)
    assert called[:2] == ["elementwise", "linear_i8"]
    real = A.values(A.codes(x)) @ (codes * scales[:, None]).T + bias.astype("float32")
    if dtype == "float32":
        np.testing.assert_allclose(got, np.maximum(real, 0), rtol=1e-4, atol=1e-4)
    else:
        check_codes(got, np.maximum(real, 0), B)


def test_convolution_of_single_pixels_is_a_fully_connected_layer() -> None:
    x, (codes, scales, bias) = floats(2, 9, 1, 1), weights(5, 9, 3, 3)

    def network(emit: Emit, x: relax.Var) -> relax.Expr:
        args = [emit(quantize(x, A)), relax.const(codes), relax.const(bias.astype("float32"))]
        window = {"strides": [1, 1], "padding": [1, 1, 1, 1], "dilation": [1, 1], "groups": 1}
        conv = layer(ops.CONV2D, args, scales, out_shape=[2, 5, 1, 1], **window)
        return dequantize(emit(conv), B)

    called, got = through(network, x)
    assert called == ["elementwise", "linear_i8", "elementwise"]
    filters = codes[:, :, 1, 1] * scales[:, None]
    real = A.values(A.codes(x))[:, :, 0, 0] @ filters.T + bias.astype("float32")
    check_codes(got[:, :, 0, 0], np.maximum(real, 0), B)


def test_depthwise_convolution_reads_the_zero_point_as_padding() -> None:
    x, (codes, scales, bias) = floats(2, 6, 13, 12), weights(6, 1, 3, 3)

    def network(emit: Emit, x: relax.Var) -> relax.Expr:
        value = emit(quantize(x, A))
        for stride in (1, 2):
            args = [value, relax.const(codes), relax.const(bias.astype("float32"))]
            shape = [2, 6, *(-(-n // stride) for n in shape_of(value)[2:])]
            window = {"strides": [stride] * 2, "padding": [1] * 4, "dilation": [1, 1], "groups": 6}
            written = {"quantization": attribute(A), "activation": "none", **window}
            value = emit(layer(ops.CONV2D, args, scales, out_shape=shape, **written))
        return dequantize(value, A)

    called, got = through(network, x)
    assert [family for family in called if "conv" in family] == ["depthwise_conv_i8"] * 2
    value = x
    for stride in (1, 2):
        filters = torch.from_numpy(codes * scales.reshape(-1, 1, 1, 1))
        planes = torch.from_numpy(A.values(A.codes(value)))
        real = functional.conv2d(
            planes, filters, torch.from_numpy(bias.astype("float32")).double(), stride, 1, groups=6
        ).numpy()
        value = A.values(A.codes(real))
    check_codes(got, real, A)
