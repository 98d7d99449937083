"""Activations with a scale a channel: one rounding with one scale, factors in the weights around
it."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from subpc.frontend.import_model import import_model
from subpc.passes import ops
from subpc.passes.dataflow import constant_of
from subpc.passes.pipeline import Rewritten, rewrite_model
from subpc.schedules.isa import AVX512_VNNI
from tests.frontend.quantized_files import runtime
from tests.passes.evaluate import operators
from tests.passes.integer_meanings import evaluate_exactly

RNG = np.random.default_rng(0)
SHAPE = (1, 4, 8, 8)
SCALES = np.array([0.0213, 0.0071, 0.0137, 0.0179], np.float32)
STEP = 0.0317


def saved(
    folder: Path,
    *,
    clip: list[float] | None = None,
    groups: int = 4,
    zeros: tuple[int, ...] = (0, 0, 0, 0),
) -> Path:
    """A convolution, a clip, a rounding with a scale a channel, and a convolution of its result,
    rounded as well; weights are codes."""
    constants = {
        "x_scale": np.float32(0.0171),
        "x_zero": np.uint8(120),
        "scales": SCALES,
        "zeros": np.array(zeros, np.uint8),
        "y_scale": np.float32(STEP),
        "y_zero": np.uint8(130),
        "w_scale": np.linspace(0.003, 0.006, 4, dtype=np.float32),
        "w_zero": np.zeros(4, np.int8),
        "v": RNG.integers(-127, 128, (4, 4, 1, 1)).astype(np.int8),
        "w": RNG.integers(-127, 128, (4, 4 // groups, 3, 3)).astype(np.int8),
        "low": np.float32((clip or [0, 0])[0]),
        "high": np.float32((clip or [0, 0])[1]),
    }

    def pair(name: str, scale: str, zero: str, **axis: int) -> list[onnx.NodeProto]:
        codes = f"{name}_codes"
        return [
            helper.make_node("QuantizeLinear", [name, scale, zero], [codes], **axis),
            helper.make_node("DequantizeLinear", [codes, scale, zero], [f"{name}_rounded"], **axis),
        ]

    weights = [
        helper.make_node(
            "DequantizeLinear", [name, "w_scale", "w_zero"], [f"{name}_weight"], axis=0
        )
        for name in "vw"
    ]
    kept = helper.make_node("Clip", ["a", "low", "high"], ["b"]) if clip else None
    last = {"pads": [1, 1, 1, 1], "group": groups}
    nodes = [
        *pair("x", "x_scale", "x_zero"),
        *weights,
        helper.make_node("Conv", ["x_rounded", "v_weight"], ["a"]),
        *([kept] if kept else []),
        *pair("b" if kept else "a", "scales", "zeros", axis=1),
        helper.make_node("Conv", [f"{'b' if kept else 'a'}_rounded", "w_weight"], ["y"], **last),
        *pair("y", "y_scale", "y_zero"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("y_rounded", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path = folder / "net.onnx"
    onnx.save(model, path)
    return path


def checked(path: Path) -> Rewritten:
    """The network as integers, which equals ONNX Runtime but for sums on the edge between two
    codes."""
    (imported,) = import_model(path)
    rewritten = rewrite_model(imported, isa=AVX512_VNNI, sparse="auto")
    x = (RNG.standard_normal(SHAPE) * 1.5).astype(np.float32)
    expected = runtime(path, x)
    assert len(np.unique(expected)) > 20
    (found,) = evaluate_exactly(rewritten.module, torch.from_numpy(x))
    steps = np.abs(found.numpy() - expected) / STEP
    assert (steps < 0.01).mean() > 0.95
    assert steps.max() < 1.01
    return rewritten


@pytest.mark.parametrize("clip", [None, [0.0, 6.0]], ids=["", "relu6"])
def test_in_front_of_a_depthwise_convolution_both_layers_stay_whole(
    clip: list[float] | None, tmp_path: Path
) -> None:
    path = saved(tmp_path, clip=clip)
    rewritten = checked(path)
    assert {d.precision for d in rewritten.decisions.values()} == {"int8"}
    assert operators(rewritten.module) == [
        "subpc.elementwise",
        "subpc.conv2d",
        "subpc.conv2d",
        "subpc.elementwise",
    ]
    stored = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    layers = [call for _, call in rewritten.graph.calls(ops.CONV2D)]
    for layer, name in zip(layers, "vw", strict=True):
        np.testing.assert_array_equal(constant_of(layer.args[1]), stored[name])


def test_a_clip_that_the_rounding_does_not_repeat_stays(tmp_path: Path) -> None:
    rewritten = checked(saved(tmp_path, clip=[0.0, 1.0]))
    assert [d.precision for d in rewritten.decisions.values()] == ["int8", "int8"]
    assert operators(rewritten.module).count("subpc.elementwise") == 3


def test_in_front_of_others_the_factors_stay_between_them(tmp_path: Path) -> None:
    """A filter of several channels has no one scale then: that layer computes floats, and says
    so."""
    rewritten = checked(saved(tmp_path, groups=1))
    assert [d.precision for d in rewritten.decisions.values()] == ["int8", "float32"]
    assert [d.why_float for d in rewritten.decisions.values()][1] == "input: not quantized"


def test_zero_points_that_differ_stay_as_they_are(tmp_path: Path) -> None:
    rewritten = checked(saved(tmp_path, zeros=(0, 3, 0, 9)))
    assert [d.precision for d in rewritten.decisions.values()] == ["int8", "float32"]
