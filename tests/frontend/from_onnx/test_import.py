"""ONNX models through the importer: ONNX Runtime's numbers, names for hoisted weights, and every
way in which a file can be bad."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from subpc.errors import ConfigError, ModelFileError, SubpcError, UnsupportedModelError
from subpc.frontend.import_model import import_model
from subpc.frontend.imported_model import ImportedModel
from subpc.frontend.reference import run_reference

TOLERANCE = 1e-4  # of the output's range
LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
OCR_NETS = [
    ("ch_ppocr_mobile_v2.0_cls_infer", (1, 3, 48, 192)),
    ("ch_PP-OCRv4_rec_infer", (1, 3, 48, 80)),
    ("ch_PP-OCRv4_det_infer", (1, 3, 64, 160)),
]

rng = np.random.default_rng(0)


def _array(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def _model(
    nodes: Sequence[onnx.NodeProto],
    weights: dict[str, np.ndarray] | None = None,
    shape: Sequence[int | str] = (1, 3, 8, 8),
    opset: int = 17,
    dtype: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info("x", dtype, list(shape))],
        [helper.make_empty_tensor_value_info("y")],
        [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()],
    )
    graph.output[0].type.tensor_type.elem_type = dtype
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def _import(model: onnx.ModelProto, folder: Path, **options: Any) -> ImportedModel:
    path = folder / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return import_model(path, **options)[0]


def _relative_error(imported: ImportedModel, model: onnx.ModelProto, x: np.ndarray) -> float:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    expected = session.run(None, {imported.input_names[0]: x})[0]
    got = run_reference(imported, [x])[0]
    assert got.shape == expected.shape
    scale = float(expected.max() - expected.min())
    assert scale > 1e-2, "an output that is constant proves nothing"
    return float(np.abs(got - expected).max()) / scale


def test_light_net_imports_as_it_is_shipped() -> None:
    (imported,) = import_model(LIGHT / "light_squeezenet.onnx")
    assert imported.input_shapes == ((1, 3, 224, 224),)
    assert "fire2/expand1x1_w_0" in imported.param_names.values()
    assert len(imported.params) == 52


@pytest.mark.parametrize(("name", "shape"), OCR_NETS)
def test_trained_nets_keep_to_operators_that_have_kernels(
    name: str, shape: tuple[int, ...]
) -> None:
    spec = importlib.util.find_spec("rapidocr_onnxruntime")
    if spec is None or spec.origin is None:
        pytest.skip("the models are not installed")
    (imported,) = import_model(Path(spec.origin).parent / "models" / f"{name}.onnx", shapes=[shape])
    assert "call_tir" not in imported.module.script()


def _node(op: str, inputs: list[str], output: str = "y", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs, [output], name=f"node_{output}", **attributes)


SPELLED = {
    "hard-swish in pieces": (
        [
            _node("Add", ["x", "three"], "a"),
            _node("Clip", ["a", "zero", "six"], "b"),
            _node("Mul", ["x", "b"], "c"),
            _node("Div", ["c", "six"]),
        ],
        ["R.clip", "R.divide", "R.multiply"],
    ),
    "HardSwish": ([_node("HardSwish", ["x"])], ["R.clip", "R.divide", "R.multiply"]),
    "HardSigmoid": ([_node("HardSigmoid", ["x"], alpha=1 / 6, beta=0.5)], ["R.clip", "R.divide"]),
    "HardSigmoid 0.2": ([_node("HardSigmoid", ["x"])], ["R.clip", "R.multiply"]),
    "relu6": ([_node("Clip", ["x", "zero", "six"])], ["R.clip"]),
    "Clip from 0": ([_node("Clip", ["x", "zero"])], ["R.nn.relu"]),
    "global pool": ([_node("GlobalAveragePool", ["x"])], ["R.nn.adaptive_avg_pool2d"]),
    "mean": (
        [_node("ReduceMean", ["x"], axes=[-1, -2], keepdims=0)],
        ["R.nn.adaptive_avg_pool2d", "R.reshape"],
    ),
    "Sum": ([_node("Sum", ["x", "x", "x"])], ["R.add"]),
    "Dropout": (
        [_node("Relu", ["x"], "r"), _node("Dropout", ["r"], "d"), _node("Abs", ["d"])],
        ["R.nn.relu"],
    ),
}


@pytest.mark.parametrize("name", SPELLED)
def test_one_spelling(name: str, tmp_path: Path) -> None:
    nodes, operators = SPELLED[name]
    constants = {"zero": np.float32(0), "three": np.float32(3), "six": np.float32(6)}
    model = _model(nodes, {k: np.array(v) for k, v in constants.items()})
    imported = _import(model, tmp_path)
    script = imported.module.script()
    assert all(f"{operator}(" in script for operator in operators)
    assert not any(
        f"R.{other}(" in script for other in ("mean", "sum", "stack", "sigmoid", "call_tir")
    )
    assert _relative_error(imported, model, 5 * _array(1, 3, 8, 8)) < TOLERANCE


def test_hoisted_weights_are_named_after_their_node(tmp_path: Path) -> None:
    weight, bias = _array(4, 3, 3, 3), _array(4)
    constant = helper.make_node("Constant", [], ["12"], value=numpy_helper.from_array(weight))
    conv = helper.make_node("Conv", ["x", "12", "onnx::Conv_3"], ["y"], name="/layer1/conv")
    imported = _import(_model([constant, conv], {"onnx::Conv_3": bias}), tmp_path)
    assert set(imported.param_names.values()) == {"/layer1/conv.weight", "/layer1/conv.bias"}
    by_name = {name: imported.params[key] for key, name in imported.param_names.items()}
    assert np.array_equal(by_name["/layer1/conv.weight"], weight)


def test_shape_arithmetic_is_folded(tmp_path: Path) -> None:
    nodes = [
        _node("Shape", ["x"], "s"),
        _node("Gather", ["s", "zero"], "n"),
        _node("Concat", ["n", "rest"], "to", axis=0),
        _node("Reshape", ["x", "to"]),
    ]
    weights = {"zero": np.array([0]), "rest": np.array([-1])}
    imported = _import(_model(nodes, weights, ("batch", 3, 8, 8)), tmp_path, shapes=[(2, 3, 8, 8)])
    assert not imported.params
    assert "R.shape([2, 192])" in imported.module.script()


def test_symbolic_shapes_need_a_shape(tmp_path: Path) -> None:
    model = _model([_node("Relu", ["x"])], shape=("batch", 3, "height", 8))
    with pytest.raises(ConfigError, match="batch,3,height,8"):
        _import(model, tmp_path)
    assert _import(model, tmp_path, shapes=[(5, 3, 8, 8)]).input_shapes == ((5, 3, 8, 8),)


@pytest.mark.parametrize("shape", [(3, 8), (1, 3, 8, 8, 8), (1, 5, 8, 8)])
def test_shape_the_network_rejects(shape: tuple[int, ...], tmp_path: Path) -> None:
    model = _model([_node("Conv", ["x", "w"])], {"w": _array(4, 3, 3, 3)})
    with pytest.raises(ConfigError) as caught:
        _import(model, tmp_path, shapes=[shape])
    assert len(str(caught.value).splitlines()) <= 2


def test_all_unknown_operators_are_listed_with_their_nodes(tmp_path: Path) -> None:
    nodes = [
        _node("Frobnicate", ["x"], "a"),
        _node("Relu", ["a"], "b"),
        helper.make_node("Gizmo", ["b"], ["y"], domain="com.example"),
    ]
    with pytest.raises(UnsupportedModelError) as caught:
        _import(_model(nodes), tmp_path)
    assert all(
        words in str(caught.value)
        for words in ("2 unsupported", "Frobnicate (in node_a)", "com.example.Gizmo (in y)")
    )


def test_newer_opset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"opset 999.*\n.*or lower"):
        _import(_model([_node("Relu", ["x"])], opset=999), tmp_path)


def test_old_opset_is_converted(tmp_path: Path) -> None:
    assert "R.nn.relu" in _import(_model([_node("Relu", ["x"])], opset=6), tmp_path).module.script()


def test_shapes_that_contradict_each_other(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="contradict"):
        _import(_model([_node("Conv", ["x", "w"])], {"w": _array(4, 7, 3, 3)}), tmp_path)


def test_half_precision_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="float16"):
        _import(_model([_node("Relu", ["x"])], dtype=TensorProto.FLOAT16), tmp_path)


def test_nan_weights_are_named(tmp_path: Path) -> None:
    weight = _array(4, 3, 3, 3)
    weight[0, 0, 0, 0] = np.nan
    imported = _import(
        _model([_node("Conv", ["x", "stem.weight"])], {"stem.weight": weight}), tmp_path
    )
    assert "layer stem contain NaN" in imported.notes[0]


def test_constants_of_absurd_size_are_refused(tmp_path: Path) -> None:
    model = _model(
        [_node("ConstantOfShape", ["shape"], "c"), _node("Add", ["x", "c"])],
        {"shape": np.array([1 << 40, 3, 8, 8])},
    )
    with pytest.raises(ModelFileError, match="at most"):
        _import(model, tmp_path)


VALID = _model(
    [_node("Conv", ["x", "w"], "c"), _node("Relu", ["c"])], {"w": _array(4, 3, 3, 3)}
).SerializeToString()


@settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_damaged_files_give_our_errors_only(data: st.DataObject, tmp_path: Path) -> None:
    content = bytearray(VALID)
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    for position in data.draw(st.lists(st.integers(0, max(len(content) - 1, 0)), max_size=3)):
        if content:
            content[position] = data.draw(st.integers(0, 255))
    path = tmp_path / "m.onnx"
    path.write_bytes(bytes(content))
    try:
        import_model(path)
    except SubpcError as error:
        message = str(error)
    else:
        message = "loaded"
    assert 1 <= len(message.splitlines()) <= 2


def test_line_breaks_in_names_do_not_reach_the_terminal(tmp_path: Path) -> None:
    model = _model([_node("Con\nv", ["x"])])
    model.graph.node[0].name = "first\x1b[31m"
    with pytest.raises(UnsupportedModelError) as caught:
        _import(model, tmp_path)
    assert r"Con\nv (in first\x1b[31m)" in str(caught.value)
