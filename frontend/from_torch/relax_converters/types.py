"""Converters for torch operators between values of several types, or of types that TVM's operators
do not take."""

from collections.abc import Callable
from typing import Any

from torch import fx
from tvm import relax

Converter = Callable[[fx.Node, Any], Any]


def clamp(node: fx.Node, importer: Any) -> Any:
    """Of integers: they have no infinite bound that stands for none."""
    x, emit = importer.env[node.args[0]], importer.block_builder.emit
    expected = node.meta["val"].dtype
    if expected.is_floating_point or str(x.ty.dtype) != str(expected).removeprefix("torch."):
        return importer.theirs[node.target.__name__](node)  # type: ignore[union-attr]
    names = ("min", "max")
    bounds: dict[str, Any] = dict(zip(names, node.args[1:], strict=False))
    bounds |= {name: node.kwargs[name] for name in names if name in node.kwargs}
    for name, limit in (("min", relax.op.maximum), ("max", relax.op.minimum)):
        if bounds.get(name) is not None:
            x = emit(limit(x, relax.const(int(bounds[name]), str(x.ty.dtype))))
    return x


def of_truth_values(operator: Callable[[Any, Any], Any], *, inverted: bool) -> Converter:
    """Comparisons of truth values, which TVM compares as floats, and that does not compile."""

    def convert(node: fx.Node, importer: Any) -> Any:
        values = [importer.env.get(value) for value in node.args if isinstance(value, fx.Node)]
        if len(values) < 2 or any(str(value.ty.dtype) != "bool" for value in values):
            return importer.theirs[node.target.__name__](node)  # type: ignore[union-attr]
        result = importer.block_builder.emit(operator(*values))
        return importer.block_builder.emit(relax.op.logical_not(result)) if inverted else result

    return convert


def divide(node: fx.Node, importer: Any) -> Any:
    """Both operands as the result's type, which is a float for integers too unless they are
    rounded."""
    emit, dtype = importer.block_builder.emit, str(node.meta["val"].dtype).removeprefix("torch.")
    x, y = (_as_type(importer, value, dtype) for value in node.args[:2])
    mode = node.kwargs.get("rounding_mode")
    if mode == "floor":
        return emit(relax.op.floor_divide(x, y))
    quotient = emit(relax.op.divide(x, y))
    return (
        emit(relax.op.trunc(quotient))
        if mode == "trunc" and dtype.startswith("float")
        else quotient
    )


def _as_type(importer: Any, value: Any, dtype: str) -> Any:
    if not isinstance(value, fx.Node):
        return relax.const(value, dtype)
    tensor = importer.env[value]
    return (
        tensor
        if str(tensor.ty.dtype) == dtype
        else importer.block_builder.emit(relax.op.astype(tensor, dtype))
    )


def max_pool3d(node: fx.Node, importer: Any) -> Any:
    """A stride that is left out is the window, which TVM does not know."""
    if len(node.args) < 3 or not node.args[2]:
        node.args = (*node.args[:2], node.args[1], *node.args[3:])
    return importer.theirs[node.target.__name__](node)  # type: ignore[union-attr]


def hyperbolic_cosine(node: fx.Node, importer: Any) -> Any:
    """By its definition: there is no code for it on a CPU."""
    x, emit = importer.env[node.args[0]], importer.block_builder.emit
    exps = emit(relax.op.add(emit(relax.op.exp(x)), emit(relax.op.exp(emit(relax.op.negative(x))))))
    return emit(relax.op.multiply(exps, relax.const(0.5, str(x.ty.dtype))))


OURS: dict[str, Converter] = {
    "clamp.default": clamp,
    "cosh.default": hyperbolic_cosine,
    "div.Tensor": divide,
    "div.Tensor_mode": divide,
    "eq.Tensor": of_truth_values(relax.op.logical_xor, inverted=True),
    "max_pool3d_with_indices.default": max_pool3d,
    "ne.Tensor": of_truth_values(relax.op.logical_xor, inverted=False),
}
