"""ONNX Resize: TVM's agrees with ONNX where a plane grows by a whole factor; every other case is a product with two matrices."""

from typing import Any

import numpy as np
import tvm
from onnx import helper
from onnx.reference import ReferenceEvaluator
from tvm import relax

# Where the place of the region of interest matters: left to TVM.
_CROPS = "tf_crop_and_resize"


def resize(inputs: list[Any], attrs: dict[str, Any], opset: int) -> Any:
    """Height and width of a (N, C, H, W) tensor; None for what TVM converts well."""
    options = {k: v.decode() if isinstance(v, bytes) else v for k, v in attrs.items() if k not in ("tvm_custom", "axes")}
    x, shape = inputs[0], [int(extent) for extent in inputs[0].ty.shape]
    factors = _factors(inputs, attrs, shape)
    if options.get("coordinate_transformation_mode") == _CROPS or options.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        return None
    sizes = [int(factor * extent + 1e-6) for factor, extent in zip(factors, shape, strict=True)]
    grows = all(factor == int(factor) >= 1 for factor in factors)
    if grows and not options.get("antialias") and not options.get("exclude_outside") and "axes" not in attrs:
        return None
    if len(shape) != 4 or sizes[:2] != shape[:2]:
        raise ValueError("only the height and width of (N, C, H, W) tensors can be resized")
    by_size = len(inputs) > 3 and inputs[3] is not None
    matrices = [_matrix(options, opset, shape[i], sizes[i] if by_size else None, factors[i]) for i in (2, 3)]
    rows = relax.op.matmul(relax.const(matrices[0]), x)
    return relax.op.matmul(rows, relax.const(np.ascontiguousarray(matrices[1].T)))


def _factors(inputs: list[Any], attrs: dict[str, Any], shape: list[int]) -> list[float]:
    """How much each axis grows, from the scales or the sizes, whichever was given."""
    sizes = _numbers(inputs[3]) if len(inputs) > 3 and inputs[3] is not None else None
    axes = [int(axis) % len(shape) for axis in attrs.get("axes", range(len(shape)))]
    factors = [1.0] * len(shape)
    for axis, value in zip(axes, sizes if sizes is not None else _numbers(inputs[2]), strict=True):
        factors[axis] = value / shape[axis] if sizes is not None else value
    return factors


def _numbers(value: Any) -> list[float]:
    if isinstance(value, relax.ShapeExpr):
        return [float(extent.value) for extent in value.values]
    if not isinstance(value, tvm.ir.GenericConst):
        raise ValueError("the new size is not a constant")
    return [float(number) for number in value.value.numpy().reshape(-1)]


def _matrix(options: dict[str, Any], opset: int, extent: int, size: int | None, factor: float) -> np.ndarray:
    """(new, old): the weight of each old pixel in each new one along one axis, asked of ONNX's own definition."""
    scales = np.array([] if size is not None else [1.0, factor], np.float32)
    feeds: dict[str, np.ndarray] = {
        "x": np.eye(extent, dtype=np.float32),
        "scales": scales,
        "sizes": np.array([extent, size or 0], np.int64),
    }
    names = ["x", "", "", "sizes"] if size is not None else ["x", "", "scales"]
    node = helper.make_node("Resize", names, ["y"], **options)
    values = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(feeds[n].dtype), feeds[n].shape) for n in names if n]
    graph = helper.make_graph([node], "resize", values, [helper.make_empty_tensor_value_info("y")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", max(opset, 13))])
    (result,) = ReferenceEvaluator(model).run(None, {name: feeds[name] for name in names if name})
    return np.ascontiguousarray(result.T, np.float32)
