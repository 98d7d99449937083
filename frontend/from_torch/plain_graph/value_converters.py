"""aten operators that compress only passes through, as operators of a GraphBuilder: functions of
single values, comparisons, reductions, types, and picking by constant places."""

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from subpc.frontend.from_torch.nodes import arguments
from subpc.frontend.from_torch.plain_graph.reader import Made, ProgramReader, rank_of, shape_of
from subpc.frontend.plain_graph.builder import type_name
from subpc.frontend.plain_graph.reader import compare, required_weight

Converter = Callable[[fx.Node, ProgramReader], Made | None]

_UNARY = (
    *("expm1", "log", "log1p", "log2", "log10", "sin", "cos", "tan", "atan"),
    *("rsqrt", "reciprocal", "square", "sign", "floor", "ceil", "round", "trunc", "logical_not"),
)


def _unary(op: str) -> Converter:
    return lambda node, reader: reader.builder.add(op, reader.value(node.args[0]))


def _elu(node: fx.Node, reader: ProgramReader) -> int:
    a = arguments(node)
    if a["input_scale"] != 1:
        raise ValueError("an input scale other than 1")
    result = reader.builder.add("elu", reader.value(a["self"]), alpha=float(a["alpha"]))
    if a["scale"] == 1:
        return result
    return reader.builder.add("mul_number", result, number=float(a["scale"]), reverse=False)


def _compare(relation: str) -> Converter:
    def convert(node: fx.Node, reader: ProgramReader) -> int:
        a = arguments(node)
        return compare(reader, relation, a["self"], a["other"])

    return convert


def _several(op: str) -> Converter:
    """An operator of tensors alone."""
    return lambda node, reader: reader.builder.add(op, *(reader.value(arg) for arg in node.args))


def _clamp(node: fx.Node, reader: ProgramReader) -> int:
    a = arguments(node)
    x = reader.value(a["self"])
    for op, bound in (("maximum", a["min"]), ("minimum", a["max"])):
        x = x if bound is None else reader.builder.add(op, x, reader.value(bound))
    return x


def _full_like(node: fx.Node, reader: ProgramReader) -> int:
    a = arguments(node)
    value = float(a.get("fill_value", "ones" in str(node.target)))
    return reader.builder.add("full_like", reader.value(a["self"]), value=value)


def _cast(node: fx.Node, reader: ProgramReader) -> int:
    source: Any = node.args[0]
    before, after = (type_name(place.meta["val"].dtype) for place in (source, node))
    x = reader.value(source)
    return x if before == after else reader.builder.add("cast", x, to=after)


def _dims(a: dict[str, Any], rank: int) -> list[int]:
    """The axes of a reduction; all where none are given."""
    given = a.get("dim")
    dims = [given] if isinstance(given, int) else given or range(rank)
    return sorted(dim % rank for dim in dims)


def _reduce(op: str, **names: str) -> Converter:
    """names: option -> name of the argument that it is."""

    def convert(node: fx.Node, reader: ProgramReader) -> int:
        a = arguments(node)
        options = {option: _number(a[argument]) for option, argument in names.items()}
        dims = _dims(a, rank_of(node.args[0]))
        keep = bool(a.get("keepdim", False))
        return reader.builder.add(
            op, reader.value(node.args[0]), dims=dims, keepdim=keep, **options
        )

    return convert


def _number(value: Any) -> float:
    return 1.0 if value is None else float(value)


def _along(op: str, *, keep: bool = True) -> Converter:
    """Along one axis."""

    def convert(node: fx.Node, reader: ProgramReader) -> int:
        a = arguments(node)
        if a["dim"] is None:
            raise ValueError("over all dimensions together")
        options = {"keepdim": bool(a["keepdim"])} if keep else {}
        x, dim = reader.value(a["self"]), a["dim"] % rank_of(a["self"])
        return reader.builder.add(op, x, dim=dim, **options)

    return convert


def _extreme_and_place(value: str, place: str) -> Converter:
    def convert(node: fx.Node, reader: ProgramReader) -> list[int]:
        return [int(_reduce(value)(node, reader)), int(_along(place)(node, reader))]  # type: ignore[arg-type]

    return convert


def _flip(node: fx.Node, reader: ProgramReader) -> int:
    a = arguments(node)
    dims = [dim % rank_of(node) for dim in a["dims"]]
    return reader.builder.add("flip", reader.value(a["self"]), dims=dims)


def _repeat(node: fx.Node, reader: ProgramReader) -> int:
    return reader.builder.add(
        "repeat", reader.value(node.args[0]), counts=list(arguments(node)["repeats"])
    )


def _take(x: int, dim: int, places: torch.Tensor, extent: int, reader: ProgramReader) -> int:
    if places.dtype == torch.bool:
        raise ValueError("places chosen by a mask")
    numbers = [int(place) % extent for place in places.flatten()]
    return reader.builder.add("take", x, dim=dim, places=numbers)


def _index_select(node: fx.Node, reader: ProgramReader) -> int:
    a = arguments(node)
    dim = a["dim"] % rank_of(a["self"])
    places = required_weight(reader, a["index"]).value
    return _take(reader.value(a["self"]), dim, places, shape_of(a["self"])[dim], reader)


def _index(node: fx.Node, reader: ProgramReader) -> int:
    """Constant places for one axis, or for each of neighbouring axes by itself (an open mesh)."""
    a = arguments(node)
    given = [(dim, index) for dim, index in enumerate(a["indices"]) if index is not None]
    places = [(dim, required_weight(reader, index).value) for dim, index in given]
    x, (first, _) = reader.value(a["self"]), given[0]
    for count, (dim, index) in enumerate(places):
        mesh = [1] * len(places)
        mesh[count] = index.numel()
        own = list(index.shape) == mesh[max(0, len(places) - index.dim()) :]
        if dim != first + count or not index.dim() or not own:
            raise ValueError("places of several dimensions")
        x = _take(x, dim, index, shape_of(a["self"])[dim], reader)
    return x


def _nothing(node: fx.Node, reader: ProgramReader) -> list[int]:
    """Of what gives no value."""
    return []


CONVERTERS: dict[str, Converter] = {
    "aten._assert_tensor_metadata.default": _nothing,
    **{f"aten.{name}.default": _unary(name) for name in _UNARY},
    "aten.elu.default": _elu,
    **{
        f"aten.{name}.{kind}": _compare(name)
        for name in ("lt", "le", "gt", "ge", "eq", "ne")
        for kind in ("Scalar", "Tensor")
    },
    "aten.logical_and.default": _several("logical_and"),
    "aten.logical_or.default": _several("logical_or"),
    "aten.where.self": _several("where"),
    "aten.pow.Tensor_Tensor": _several("power"),
    "aten.clamp.Tensor": _clamp,
    **dict.fromkeys(
        ("aten.full_like.default", "aten.zeros_like.default", "aten.ones_like.default"), _full_like
    ),
    "aten._to_copy.default": _cast,
    "aten.mean.default": _reduce("mean"),
    "aten.sum.default": _reduce("sum"),
    "aten.amin.default": _reduce("min"),
    "aten.max.default": _reduce("max"),
    "aten.min.default": _reduce("min"),
    "aten.any.dim": _reduce("any"),
    "aten.linalg_vector_norm.default": _reduce("norm", order="ord"),
    "aten.var.correction": _reduce("variance", correction="correction"),
    "aten.prod.dim_int": _along("prod"),
    "aten.argmax.default": _along("argmax"),
    "aten.argmin.default": _along("argmin"),
    "aten.cumsum.default": _along("cumsum", keep=False),
    "aten.max.dim": _extreme_and_place("max", "argmax"),
    "aten.min.dim": _extreme_and_place("min", "argmin"),
    "aten.flip.default": _flip,
    "aten.repeat.default": _repeat,
    "aten.index_select.default": _index_select,
    "aten.index.Tensor": _index,
}
