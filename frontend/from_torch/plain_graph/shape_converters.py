"""aten operators that move, cut, join, pool and resize values, as operators of a GraphBuilder."""

import math
from collections.abc import Callable
from typing import Any

from torch import fx

from subpc.frontend.from_torch.nodes import arguments
from subpc.frontend.from_torch.plain_graph.reader import Made, ProgramReader, rank_of, shape_of
from subpc.frontend.plain_graph.reader import expand, reshape, split

Converter = Callable[[fx.Node, ProgramReader], Made | None]


def pair(value: Any) -> list[int]:
    """One number, or two, as two."""
    values = [int(v) for v in value] if isinstance(value, list | tuple) else [int(value)]
    return values * 2 if len(values) == 1 else values


def _cat(node: fx.Node, reader: ProgramReader) -> int:
    a = arguments(node)
    return reader.builder.add(
        "cat", *(reader.value(n) for n in a["tensors"]), dim=a["dim"] % rank_of(node)
    )


def _view(node: fx.Node, reader: ProgramReader) -> int:
    before, after = shape_of(node.args[0]), shape_of(node)
    return reshape(reader.builder, reader.value(node.args[0]), before, after)


def _permute(node: fx.Node, reader: ProgramReader) -> int:
    a = arguments(node)
    rank = rank_of(node)
    if "dims" in a:
        dims = [d % rank for d in a["dims"]]
    else:
        dims = list(range(rank))
        first, second = (a["dim0"] % rank, a["dim1"] % rank) if "dim0" in a else (0, rank - 1)
        dims[first], dims[second] = dims[second], dims[first]
    return reader.builder.add("permute", reader.value(node.args[0]), dims=dims)


def _squeeze(node: fx.Node, reader: ProgramReader) -> int:
    a, rank = arguments(node), rank_of(node.args[0])
    dims = a["dim"] if isinstance(a["dim"], list | tuple) else [a["dim"]]
    return reader.builder.add("squeeze", reader.value(a["self"]), dims=[d % rank for d in dims])


def _unsqueeze(node: fx.Node, reader: ProgramReader) -> int:
    a = arguments(node)
    return reader.builder.add("unsqueeze", reader.value(a["self"]), dim=a["dim"] % rank_of(node))


def _expand(node: fx.Node, reader: ProgramReader) -> int:
    return expand(
        reader.builder, reader.value(node.args[0]), shape_of(node.args[0]), shape_of(node)
    )


def _slice(node: fx.Node, reader: ProgramReader) -> int:
    a = arguments(node)
    dim = a["dim"] % rank_of(node)
    extent = shape_of(a["self"])[dim]
    start, end = a["start"] or 0, a["end"]
    end = None if end is None or end >= extent else end
    if start == 0 and end is None and a["step"] == 1:
        return reader.value(a["self"])
    return reader.builder.add(
        "slice", reader.value(a["self"]), dim=dim, start=start, end=end, step=a["step"]
    )


def _split(node: fx.Node, reader: ProgramReader) -> list[int]:
    a = arguments(node)
    dim = a["dim"] % rank_of(a["self"])
    sizes = (
        a["split_sizes"]
        if "split_sizes" in a
        else _equal(shape_of(a["self"])[dim], a["split_size"])
    )
    return split(reader.builder, reader.value(a["self"]), dim, sizes)


def _equal(extent: int, size: int) -> list[int]:
    return [min(size, extent - start) for start in range(0, extent, size)]


def _select(node: fx.Node, reader: ProgramReader) -> int:
    a = arguments(node)
    rank, index = rank_of(a["self"]), a["index"]
    dim = a["dim"] % rank
    index %= shape_of(a["self"])[dim]
    part = reader.builder.add(
        "slice", reader.value(a["self"]), dim=dim, start=index, end=index + 1, step=1
    )
    return reader.builder.add("squeeze", part, dims=[dim])


def _pad(node: fx.Node, reader: ProgramReader) -> int:
    a = arguments(node)
    pads, value = [int(n) for n in (a["pad"] if "pad" in a else a["padding"])], a.get("value", 0.0)
    mode = (
        "constant"
        if "value" in a
        else "reflect"
        if "reflection" in str(node.target)
        else "replicate"
    )
    if not any(pads):
        return reader.value(node.args[0])
    value = None if math.isinf(value) else float(value)
    return reader.builder.add("pad", reader.value(node.args[0]), pads=pads, mode=mode, value=value)


def _reduce(op: str) -> Converter:
    def convert(node: fx.Node, reader: ProgramReader) -> int:
        a, rank = arguments(node), rank_of(node.args[0])
        dims = sorted(d % rank for d in (a.get("dim") or range(rank)))
        return reader.builder.add(
            op, reader.value(node.args[0]), dims=dims, keepdim=bool(a.get("keepdim", False))
        )

    return convert


def _window(a: dict[str, Any]) -> dict[str, Any]:
    """What all poolings say of their window; without a stride, windows lie side by side."""
    return {
        "kernel": pair(a["kernel_size"]),
        "stride": pair(a["stride"] or a["kernel_size"]),
        "padding": pair(a["padding"]),
    }


def _max_pool(node: fx.Node, reader: ProgramReader) -> Made:
    a = arguments(node)
    window = {**_window(a), "dilation": pair(a["dilation"]), "ceil": bool(a["ceil_mode"])}
    result = reader.builder.add("max_pool2d", reader.value(a["self"]), **window)
    return [result] if "with_indices" in str(node.target) else result


def _avg_pool(node: fx.Node, reader: ProgramReader) -> int:
    a = arguments(node)
    window = {**_window(a), "ceil": bool(a["ceil_mode"])}
    more = {"count_pad": bool(a["count_include_pad"]), "divisor": a["divisor_override"]}
    return reader.builder.add("avg_pool2d", reader.value(a["self"]), **window, **more)


def _adaptive(op: str) -> Converter:
    def convert(node: fx.Node, reader: ProgramReader) -> Made:
        a = arguments(node)
        result = reader.builder.add(op, reader.value(a["self"]), size=pair(a["output_size"]))
        return [result] if "max" in op else result

    return convert


def _interpolate(mode: str) -> Converter:
    def convert(node: fx.Node, reader: ProgramReader) -> int:
        a = arguments(node)
        scale = [float(n) for n in a["scale_factors"]] if a.get("scale_factors") else None
        size = None if scale is not None else [int(n) for n in shape_of(node)[2:]]
        align = None if mode == "nearest" else bool(a["align_corners"])
        return reader.builder.add(
            "interpolate", reader.value(a["input"]), mode=mode, size=size, scale=scale, align=align
        )

    return convert


def _pixel_shuffle(node: fx.Node, reader: ProgramReader) -> int:
    a = arguments(node)
    return reader.builder.add(
        "pixel_shuffle", reader.value(a["self"]), factor=int(a["upscale_factor"])
    )


def _same_value(node: fx.Node, reader: ProgramReader) -> int:
    return reader.value(node.args[0])


CONVERTERS: dict[str, Converter] = {
    "aten.cat.default": _cat,
    "aten.view.default": _view,
    "aten._unsafe_view.default": _view,
    "aten.reshape.default": _view,
    "aten.permute.default": _permute,
    "aten.transpose.int": _permute,
    "aten.t.default": _permute,
    "aten.squeeze.dim": _squeeze,
    "aten.squeeze.dims": _squeeze,
    "aten.unsqueeze.default": _unsqueeze,
    "aten.expand.default": _expand,
    "aten.slice.Tensor": _slice,
    "aten.split_with_sizes.default": _split,
    "aten.split.Tensor": _split,
    "aten.select.int": _select,
    "aten.constant_pad_nd.default": _pad,
    "aten.reflection_pad2d.default": _pad,
    "aten.replication_pad2d.default": _pad,
    "aten.mean.dim": _reduce("mean"),
    "aten.sum.dim_IntList": _reduce("sum"),
    "aten.amax.default": _reduce("max"),
    "aten.max_pool2d.default": _max_pool,
    "aten.max_pool2d_with_indices.default": _max_pool,
    "aten.avg_pool2d.default": _avg_pool,
    "aten.adaptive_avg_pool2d.default": _adaptive("adaptive_avg_pool2d"),
    "aten._adaptive_avg_pool2d.default": _adaptive("adaptive_avg_pool2d"),
    "aten.adaptive_max_pool2d.default": _adaptive("adaptive_max_pool2d"),
    "aten.upsample_nearest2d.vec": _interpolate("nearest"),
    "aten.upsample_bilinear2d.vec": _interpolate("bilinear"),
    "aten.upsample_bicubic2d.vec": _interpolate("bicubic"),
    "aten.pixel_shuffle.default": _pixel_shuffle,
    **{
        f"aten.{name}.default": _same_value
        for name in ("clone", "alias", "detach", "dropout", "lift_fresh_copy")
    },
}
