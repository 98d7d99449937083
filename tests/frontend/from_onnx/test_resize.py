"""ONNX Upsample and Resize of every version: the numbers of ONNX's reference, and of ONNX Runtime
where that has none."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from subpc.compiler.compile_model import compile
from subpc.errors import SubpcError
from subpc.frontend.from_onnx.network import OnnxFile
from subpc.frontend.from_onnx.to_graph import network_from_onnx

TOLERANCE = 1e-4
SHAPE = (1, 2, 5, 6)
GROWN, ODD, SHRUNK = (1, 1, 2, 3), (1, 1, 1.6, 2.5), (1, 1, 0.6, 0.5)
NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
PLACES = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric")
X = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)


class Model:
    """Resizings of one input, an output each."""

    def __init__(self, opset: int) -> None:
        self.opset, self.nodes = opset, list[onnx.NodeProto]()
        self.constants: dict[str, np.ndarray] = {}

    def add(
        self,
        op: str,
        scales: Sequence[float] = (),
        sizes: Sequence[int] = (),
        roi: Sequence[float] = (),
        **attributes: Any,
    ) -> None:
        number = len(self.nodes)
        given = {
            f"roi{number}": np.array(roi, np.float32),
            f"scales{number}": np.array(scales, np.float32),
        }
        given[f"sizes{number}"] = np.array(sizes, np.int64)
        if self.opset < 9:
            names, attributes = ["x"], {**attributes, "scales": [float(scale) for scale in scales]}
        elif self.opset < 11:
            names = ["x", f"scales{number}"]
        else:
            kept = [
                name
                for name, value in given.items()
                if value.size or (self.opset < 13 and not name.startswith("sizes"))
            ]
            names = ["x", *(name if name in kept else "" for name in given)]
        self.constants |= {name: given[name] for name in names if name in given}
        self.nodes.append(
            helper.make_node(op, names, [f"y{number}"], name=f"n{number}", **attributes)
        )

    def proto(self, shape: Sequence[int] = SHAPE) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "test",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
            [
                helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None)
                for node in self.nodes
            ],
            [numpy_helper.from_array(value, name) for name, value in self.constants.items()],
        )
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8
        )

    def compiled(self, folder: Path, x: np.ndarray = X) -> list[np.ndarray]:
        onnx.save(self.proto(x.shape), folder / "m.onnx")
        got = compile(folder / "m.onnx")(x)
        return [got] if isinstance(got, np.ndarray) else list(got)

    def by_runtime(self) -> list[np.ndarray]:
        runtime = pytest.importorskip("onnxruntime")
        session = runtime.InferenceSession(
            self.proto().SerializeToString(), providers=["CPUExecutionProvider"]
        )
        return list(session.run(None, {"x": X}))

    def check(self, expected: Sequence[np.ndarray], got: Sequence[np.ndarray]) -> None:
        for node, a, b in zip(self.nodes, expected, got, strict=True):
            assert a.shape == b.shape, node
            assert np.abs(a - b).max() < TOLERANCE, node


OLD = [("Upsample", 7), ("Upsample", 8), ("Upsample", 9), ("Resize", 10)]


@pytest.mark.parametrize(("op", "opset"), OLD)
def test_before_there_were_options(op: str, opset: int, tmp_path: Path) -> None:
    model = Model(opset)
    for scales, mode in itertools.product(
        (GROWN, ODD, SHRUNK) if op == "Resize" else (GROWN, ODD), ("nearest", "linear")
    ):
        model.add(op, scales, mode=mode)
    model.check(model.by_runtime(), model.compiled(tmp_path))


@pytest.mark.parametrize(("op", "opset"), OLD)
def test_compress_reads_the_same(op: str, opset: int, tmp_path: Path) -> None:
    model = Model(opset)
    model.add(op, GROWN, mode="nearest")
    onnx.save(model.proto(), tmp_path / "m.onnx")
    model.check(
        model.by_runtime(),
        [network_from_onnx(OnnxFile(tmp_path / "m.onnx"), None)[0](torch.from_numpy(X)).numpy()],
    )


def grid(opset: int) -> Model:
    model = Model(opset)
    how: list[dict[str, Any]] = [
        {"mode": "nearest", "nearest_mode": nearest} for nearest in NEAREST
    ]
    how += [
        {"mode": "linear"},
        {"mode": "cubic"},
        {"mode": "cubic", "cubic_coeff_a": -0.5, "exclude_outside": 1},
    ]
    how += [{"mode": mode, "antialias": 1} for mode in ("linear", "cubic")] if opset >= 18 else []
    for place, scales, options in itertools.product(PLACES, (GROWN, ODD, SHRUNK), how):
        if place != "half_pixel_symmetric" or opset >= 19:
            model.add("Resize", scales, coordinate_transformation_mode=place, **options)
    for place, sizes in itertools.product(PLACES[2:], ((1, 2, 7, 4), (1, 2, 10, 12))):
        model.add("Resize", sizes=sizes, coordinate_transformation_mode=place, mode="cubic")
    return model


@pytest.mark.slow
@pytest.mark.parametrize("opset", [11, 13, 18, 19])
def test_grid(opset: int, tmp_path: Path) -> None:
    model = grid(opset)
    model.check(ReferenceEvaluator(model.proto()).run(None, {"x": X}), model.compiled(tmp_path))


def test_a_sample_of_the_grid(tmp_path: Path) -> None:
    model = grid(19)
    model.nodes = model.nodes[::13]
    model.constants = {
        name: value
        for name, value in model.constants.items()
        if any(name in node.input for node in model.nodes)
    }
    model.check(ReferenceEvaluator(model.proto()).run(None, {"x": X}), model.compiled(tmp_path))


def test_tensorflows_nearest(tmp_path: Path) -> None:
    """Opset 11 alone had it; ONNX's reference does not."""
    model = Model(11)
    for scales, nearest in itertools.product((GROWN, (1, 1, 1.5, 2.5)), NEAREST):
        model.add(
            "Resize",
            scales,
            mode="nearest",
            coordinate_transformation_mode="tf_half_pixel_for_nn",
            nearest_mode=nearest,
        )
    model.check(model.by_runtime(), model.compiled(tmp_path))


def test_regions_axes_and_ratios(tmp_path: Path) -> None:
    model = Model(19)
    crop = {"coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 7.0}
    model.add(
        "Resize", sizes=(1, 2, 4, 8), roi=(0, 0, 0.2, 0.4, 1, 1, 0.9, 1.3), mode="linear", **crop
    )
    model.add(
        "Resize", sizes=(1, 2, 4, 8), roi=(0, 0, -0.2, 0.4, 1, 1, 0.9, 0.6), mode="nearest", **crop
    )
    model.add(
        "Resize", sizes=(8, 9), axes=[2, 3], mode="linear", keep_aspect_ratio_policy="not_larger"
    )
    model.add(
        "Resize", sizes=(9, 8), axes=[3, 2], mode="cubic", keep_aspect_ratio_policy="not_smaller"
    )
    model.add("Resize", scales=(1.5, 2), axes=[3, 1], mode="linear")
    model.add("Resize", scales=(2, 2, 1, 1), mode="nearest")
    model.check(ReferenceEvaluator(model.proto()).run(None, {"x": X}), model.compiled(tmp_path))


@pytest.mark.parametrize("shape", [(4, 6), (1, 2, 9), (1, 2, 3, 4, 5)], ids=["2-D", "3-D", "5-D"])
def test_other_than_images(shape: tuple[int, ...], tmp_path: Path) -> None:
    model, x = Model(18), np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    for mode in ("nearest", "linear"):
        model.add("Resize", scales=[*([1] * (len(shape) - 1)), 2], mode=mode)
        model.add("Resize", scales=[*([1] * (len(shape) - 2)), 1.5, 2], mode=mode)
    model.check(
        ReferenceEvaluator(model.proto(shape)).run(None, {"x": x}), model.compiled(tmp_path, x)
    )


def test_infinite_pixels_stay_where_they_are(tmp_path: Path) -> None:
    """A product with a matrix would spread them, as 0 times infinity, over their rows."""
    model, x = Model(13), X.copy()
    x[0, 0, 1, 1] = np.inf
    model.add("Resize", ODD, mode="nearest")
    (got,) = model.compiled(tmp_path, x)
    assert not np.isnan(got).any()
    assert np.isinf(got).any()


BAD = {
    "sparkling": {"scales": GROWN, "mode": "sparkling"},
    "region": {
        "scales": GROWN,
        "mode": "linear",
        "coordinate_transformation_mode": "tf_crop_and_resize",
    },
    "either scales or sizes": {"mode": "linear"},
    "becomes": {"scales": (1, 1, 0.1, 1), "mode": "linear"},
}


@pytest.mark.parametrize("words", BAD)
def test_what_cannot_be_resized_is_refused_with_its_node(words: str, tmp_path: Path) -> None:
    model = Model(13)
    model.add("Resize", **BAD[words])  # type: ignore[arg-type]
    (tmp_path / "m.onnx").write_bytes(model.proto().SerializeToString())
    with pytest.raises(SubpcError, match="n0") as caught:
        compile(tmp_path / "m.onnx")
    assert len(str(caught.value).splitlines()) <= 2
