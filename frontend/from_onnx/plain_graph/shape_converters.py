"""ONNX operators that move, cut, join and resize values, as operators of a GraphBuilder."""

from collections.abc import Callable
from typing import Any

import onnx

from subpc.frontend.from_onnx.plain_graph.reader import OnnxGraphReader
from subpc.frontend.from_onnx.resampling import options_of
from subpc.frontend.plain_graph.reader import expand, reshape, split

Converter = Callable[[OnnxGraphReader, onnx.NodeProto, dict[str, Any]], Any]


def _rank(reader: OnnxGraphReader, node: onnx.NodeProto) -> int:
    return len(reader.shape(node.input[0]))


def _whole(values: Any) -> list[int]:
    return [int(value) for value in values]


def _reshape(reader: OnnxGraphReader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    """Reshape and Flatten: the result's shape is known from shape inference."""
    before, after = reader.shape(node.input[0]), reader.shape(node.output[0])
    return reshape(reader.builder, reader.value(node.input[0]), tuple(before), tuple(after))


def _squeeze(reader: OnnxGraphReader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    shape = reader.shape(node.input[0])
    axes = (
        a.get("axes") or reader.numbers(node, 1) or [axis for axis, n in enumerate(shape) if n == 1]
    )
    dims = sorted(int(axis) % len(shape) for axis in axes)
    return reader.builder.add("squeeze", reader.value(node.input[0]), dims=dims)


def _unsqueeze(reader: OnnxGraphReader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    rank, x = len(reader.shape(node.output[0])), reader.value(node.input[0])
    for axis in sorted(int(axis) % rank for axis in a.get("axes") or reader.numbers(node, 1) or ()):
        x = reader.builder.add("unsqueeze", x, dim=axis)
    return int(x)


def _transpose(reader: OnnxGraphReader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    dims = _whole(a.get("perm") or reversed(range(_rank(reader, node))))
    return reader.builder.add("permute", reader.value(node.input[0]), dims=dims)


def _concat(reader: OnnxGraphReader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    dim = int(a["axis"]) % len(reader.shape(node.output[0]))
    return reader.builder.add("cat", *(reader.value(name) for name in node.input), dim=dim)


def _split(reader: OnnxGraphReader, node: onnx.NodeProto, a: dict[str, Any]) -> list[int]:
    dim = int(a.get("axis", 0)) % _rank(reader, node)
    sizes = [reader.shape(name)[dim] for name in node.output]
    return split(reader.builder, reader.value(node.input[0]), dim, sizes)


def _slice(reader: OnnxGraphReader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    extents = reader.shape(node.input[0])
    starts, ends = (
        a.get(key) or reader.numbers(node, i) or () for i, key in ((1, "starts"), (2, "ends"))
    )
    axes = a.get("axes") or reader.numbers(node, 3) or range(len(starts))
    steps = reader.numbers(node, 4) or [1] * len(starts)
    x = reader.value(node.input[0])
    for start, end, axis, step in zip(*map(_whole, (starts, ends, axes, steps)), strict=True):
        axis %= len(extents)
        first, last, _ = slice(start, end, step).indices(extents[axis])
        if step < 1:
            places = list(range(first, last, step))
            x = reader.builder.add("take", x, dim=axis, places=places)
        elif (first, last, step) != (0, extents[axis], 1):
            x = reader.builder.add("slice", x, dim=axis, start=first, end=last, step=step)
    return int(x)


def _gather(reader: OnnxGraphReader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    """Constant places along an axis: one, whose axis goes, or several."""
    index = reader.weight(node.input[1])
    if index is None or index.value.ndim > 1:
        raise ValueError("places that are no constant list")
    dim = int(a.get("axis", 0)) % _rank(reader, node)
    extent = reader.shape(node.input[0])[dim]
    if index.value.ndim:
        places = [int(place) % extent for place in index.value]
        return reader.builder.add("take", reader.value(node.input[0]), dim=dim, places=places)
    place = int(index.value) % extent
    part = reader.builder.add(
        "slice", reader.value(node.input[0]), dim=dim, start=place, end=place + 1, step=1
    )
    return reader.builder.add("squeeze", part, dims=[dim])


def _pad(reader: OnnxGraphReader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    rank, mode = _rank(reader, node), a.get("mode", "constant")
    pads = _whole(a.get("pads") or reader.numbers(node, 1) or ())
    axes = reader.numbers(node, 3)
    if len(pads) != 2 * rank or axes is not None or mode not in ("constant", "reflect", "edge"):
        raise ValueError(f"mode {mode}, or some axes only")
    value = (reader.numbers(node, 2) or [a.get("value", 0.0)])[0]
    pairs = list(zip(pads[:rank], pads[rank:], strict=True))
    while len(pairs) > 1 and pairs[0] == (0, 0):
        pairs.pop(0)
    flat = [extent for pair in reversed(pairs) for extent in pair]
    if mode != "constant" and len(pairs) > 2:
        raise ValueError(f"mode {mode} over more than height and width")
    words = {"edge": "replicate"}.get(mode, mode)
    return reader.builder.add(
        "pad", reader.value(node.input[0]), pads=flat, mode=words, value=float(value)
    )


def _resize(reader: OnnxGraphReader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    """What PyTorch's interpolate computes as well: pixels copied by whole factors, and bilinear
    mixtures."""
    before, after = reader.shape(node.input[0]), reader.shape(node.output[0])
    options = options_of(a, old=node.op_type == "Upsample" or reader.opset < 11)
    if len(before) != 4 or before[:2] != after[:2]:
        raise ValueError("other than height and width of (N, C, H, W)")
    factors = [n // o for n, o in zip(after[2:], before[2:], strict=True)]
    whole = all(o * f == n for o, n, f in zip(before[2:], after[2:], factors, strict=True))
    x = reader.value(node.input[0])
    if options.copies_pixels and whole:
        return reader.builder.add(
            "interpolate",
            x,
            mode="nearest",
            size=None,
            scale=[float(f) for f in factors],
            align=None,
        )
    bilinear = options.is_bilinear or (
        options.mode == "linear" and options.place in ("pytorch_half_pixel", "align_corners")
    )
    if (
        not bilinear
        or options.antialias
        or options.exclude_outside
        or not _by_size(reader, node, a, before, after)
    ):
        raise ValueError(
            f"mode {options.mode} with {options.place} from {list(before[2:])} to {list(after[2:])}"
        )
    size = {"size": list(after[2:]), "scale": None, "align": options.place == "align_corners"}
    return reader.builder.add("interpolate", x, mode="bilinear", **size)


def _by_size(
    reader: OnnxGraphReader,
    node: onnx.NodeProto,
    a: dict[str, Any],
    before: tuple[int, ...],
    after: tuple[int, ...],
) -> bool:
    """Whether the extents alone say how much the image grows: a scale that was rounded places
    pixels otherwise."""
    if a.get("keep_aspect_ratio_policy", "stretch") != "stretch" or a.get("axes"):
        return False
    scales = reader.numbers(node, 1 if len(node.input) == 2 else 2) or a.get("scales")
    return not scales or all(
        o * scale == n for o, n, scale in zip(before, after, scales, strict=True)
    )


def _depth_to_space(reader: OnnxGraphReader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    if a.get("mode", "DCR") != "CRD":
        raise ValueError("mode DCR")
    return reader.builder.add(
        "pixel_shuffle", reader.value(node.input[0]), factor=int(a["blocksize"])
    )


def _expand(reader: OnnxGraphReader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    return expand(
        reader.builder,
        reader.value(node.input[0]),
        reader.shape(node.input[0]),
        reader.shape(node.output[0]),
    )


def _same_value(reader: OnnxGraphReader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    return reader.value(node.input[0])


CONVERTERS: dict[str, Converter] = {
    **dict.fromkeys(("Reshape", "Flatten"), _reshape),
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    **dict.fromkeys(("Identity", "Dropout"), _same_value),
    "Transpose": _transpose,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "Pad": _pad,
    **dict.fromkeys(("Resize", "Upsample"), _resize),
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
}
