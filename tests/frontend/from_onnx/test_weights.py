"""Weights that an ONNX file holds in another form: half precision, integers with scales; and
batches that it fixes."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from subpc.compiler.compile_model import compile
from subpc.errors import ConfigError, UnsupportedModelError
from subpc.runtime.model import CompiledModel

RNG = np.random.default_rng(0)
W = RNG.standard_normal((8, 4, 3, 3)).astype(np.float32)
X = RNG.standard_normal((1, 4, 8, 8)).astype(np.float32)
CONV: dict[str, Any] = {"pads": [1, 1, 1, 1], "name": "conv"}


def saved(
    folder: Path,
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.ndarray],
    output: int = TensorProto.FLOAT,
) -> Path:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(X.shape))],
        [helper.make_tensor_value_info("y", output, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        folder / "m.onnx",
    )
    return folder / "m.onnx"


def convolved(weight: np.ndarray, x: np.ndarray = X) -> np.ndarray:
    import torch

    return torch.nn.functional.conv2d(
        torch.from_numpy(x), torch.from_numpy(weight), padding=1
    ).numpy()


def check(model: CompiledModel, expected: np.ndarray) -> None:
    """The numbers, and that the convolution is a layer with a kernel."""
    np.testing.assert_allclose(model(X), expected, atol=1e-4)
    assert [layer.name for layer in model.report.layers] == ["w"]
    assert "fallback" not in {step.family for step in model.functions[0].steps}


def cast(source: str, target: str, to: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], to=to)


def test_weights_in_half_precision(tmp_path: Path) -> None:
    nodes = [
        cast("w", "wide", TensorProto.FLOAT),
        helper.make_node("Conv", ["x", "wide"], ["y"], **CONV),
    ]
    half = W.astype(np.float16)
    model = compile(saved(tmp_path, nodes, {"w": half}))
    np.testing.assert_allclose(model(X), convolved(half.astype(np.float32)), atol=1e-4)
    assert len(model.report.layers) == 1


@pytest.mark.parametrize("turned", [False, True], ids=["in order", "out of order"])
def test_half_precision_between_float32_ends(turned: bool, tmp_path: Path) -> None:
    """As converters write it, which put the last nodes first."""
    nodes = [
        cast("x", "x16", TensorProto.FLOAT16),
        helper.make_node("Conv", ["x16", "w"], ["y16"], **CONV),
        cast("y16", "y", TensorProto.FLOAT),
    ]
    half = W.astype(np.float16)
    check(
        compile(saved(tmp_path, nodes[::-1] if turned else nodes, {"w": half})),
        convolved(half.astype(np.float32)),
    )


def test_half_precision_at_an_output_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, [cast("x", "y", TensorProto.FLOAT16)], {}, TensorProto.FLOAT16)
    with pytest.raises(UnsupportedModelError, match="Output 'y' is in half precision"):
        compile(path)


@pytest.mark.parametrize(
    "scale",
    [np.float32(0.02), np.linspace(0.01, 0.03, 8, dtype=np.float32)],
    ids=["one scale", "a scale a filter"],
)
@pytest.mark.parametrize("zero", [0, 3])
def test_quantized_weights(scale: np.ndarray, zero: int, tmp_path: Path) -> None:
    codes = np.clip(np.round(W / 0.02), -128, 127).astype(np.int8)
    constants = {
        "w": codes,
        "scale": np.asarray(scale),
        "zero": np.full(np.shape(scale), zero, np.int8),
    }
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "scale", "zero"], ["float"], axis=0),
        helper.make_node("Conv", ["x", "float"], ["y"], **CONV),
    ]
    model = compile(saved(tmp_path, nodes, constants))
    expected = convolved(
        (codes.astype(np.float32) - zero) * np.asarray(scale, np.float32).reshape(-1, 1, 1, 1)
    )
    np.testing.assert_allclose(model(X), expected, atol=1e-4)
    assert len(model.report.layers) == 1
    assert "fallback" not in {step.family for step in model.functions[0].steps}


def test_quantized_activations_are_rounded_and_clipped(tmp_path: Path) -> None:
    """Halves go to the even neighbour."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["codes"]),
        helper.make_node("DequantizeLinear", ["codes", "scale", "zero"], ["y"]),
    ]
    path = saved(
        tmp_path, nodes, {"scale": np.array(0.5, np.float32), "zero": np.array(3, np.uint8)}
    )
    x = (np.arange(X.size, dtype=np.float32).reshape(X.shape) - 40) / 4
    np.testing.assert_array_equal(
        compile(path)(x), (np.clip(np.round(x / 0.5) + 3, 0, 255) - 3) * 0.5
    )


def flattened(folder: Path, *shape: int) -> Path:
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
    ]
    return saved(
        folder,
        nodes,
        {"shape": np.array(shape), "w": RNG.standard_normal((256, 5)).astype(np.float32)},
    )


@pytest.mark.parametrize("shape", [(1, -1), (1, 256)], ids=str)
def test_a_batch_that_is_only_in_reshapes_can_be_another(
    shape: tuple[int, ...], tmp_path: Path
) -> None:
    path, x = flattened(tmp_path, *shape), RNG.standard_normal((3, *X.shape[1:])).astype(np.float32)
    alone = compile(path)
    np.testing.assert_allclose(
        compile(path, shapes=[x.shape])(x),
        np.concatenate([alone(row[None]) for row in x]),
        atol=1e-4,
    )


def test_what_a_file_fixes_is_said(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=(
            r"fixes its input to 1,4,8,8; it cannot take 1,4,9,9: .*\nCompile it for 1,4,8,8, or"
            r" export"
        ),
    ):
        compile(flattened(tmp_path, 1, -1), shapes=[(1, 4, 9, 9)])
